"""What a calibration achieved and what it promises, for ``calibration.json`` and for people.

about = {"name": "calibration part", "prevalence_from": "the bundle's training lesions"}
facts = report(calibration, probabilities, risk, labels, **about, targets=targets)
facts["achieved"]["review"]["melanoma"]["sensitivity"]["interval_95"]
print(readable(calibration))
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.numbers import significant
from derma_semantics.evaluation.metrics import (
    MALIGNANT,
    MELANOMA,
    Floats,
    Ints,
    prediction_set_report,
    rate,
    triage_report,
)
from derma_training.bundle import Calibration
from derma_training.calibration.conformal import GROUPS, in_group, prediction_sets, too_few
from derma_training.calibration.risk_control import fewest_examples
from derma_training.calibration.scaling import BY_HAND, EARLIER
from derma_training.calibration.targets import MARGIN, Targets

METHODS = {
    "RISK": "probabilities weighed by prevalence (Saerens et al., Neural Computation 14, 2002)",
    "temperature": "temperature scaling, conditions weighed equally (arXiv 1706.04599)",
    "review, urgent": "exact binomial tests in fixed sequence, Learn then Test (arXiv 2110.01052), by MAPIE; "
    f"review then with a margin, its odds divided by {MARGIN}, for bf16 and int8",
    "prediction_set": "split conformal, LAC score (arXiv 1609.00451), Mondrian by group of conditions (Vovk)",
}
ASSUMPTIONS = {
    "exchangeability": "New images are exchangeable with the calibration images: from the same source, each "
    "independent of the others. Nothing is guaranteed for another clinic, camera or population.",
    "intervals": "Achieved values are those on the calibration set; intervals are Clopper-Pearson 95 %.",
}

NOT_OF_THESE = (
    "The guarantees of review and urgent hold only if this prevalence was not taken from the calibration "
    "images."
)


def report(
    calibration: Calibration,
    probabilities: Floats,
    risk: Floats,
    labels: Ints,
    *,
    name: str,
    prevalence_from: str,
    targets: Targets,
) -> dict[str, Any]:
    """Targets, achieved values with their counts, guarantees and assumptions.

    Args:
        probabilities: at the calibration's temperature, shape (N, 7).
        risk: what follows from them at its prevalence, shape (N,).
        name: what the calibration set is.
        prevalence_from: see ``Scaling``.
    """
    return {
        "targets": asdict(targets),
        "methods": METHODS,
        "calibration_set": {
            "name": name,
            "images": len(labels),
            "conditions": {code: int((labels == index).sum()) for index, code in enumerate(CODES)},
        },
        "achieved": {
            "review": triage_report(risk >= calibration.review, labels),
            "urgent": triage_report(risk >= calibration.urgent, labels),
            "prediction_set": _sets(calibration, probabilities, labels),
        },
        "guarantees": {
            "review": _review(calibration, int((labels == MELANOMA).sum()), targets),
            "urgent": _urgent(int((~MALIGNANT[labels]).sum()), targets),
            "prediction_set": _set_guarantee(labels, targets),
        },
        "assumes": {**ASSUMPTIONS, "prevalence": _prevalence(calibration, prevalence_from)},
        "prevalence_from": prevalence_from,
    }


def readable(calibration: Calibration) -> str:
    """Thresholds, sensitivity beside specificity, and the guarantees in plain words."""
    achieved, guarantees = calibration.report["achieved"], calibration.report["guarantees"]
    sets = achieved["prediction_set"]
    review, urgent = significant(calibration.review), significant(calibration.urgent)
    lines = [
        f"on {calibration.report['calibration_set']['images']} images: "
        f"{calibration.report['calibration_set']['name']}",
        f"review  at RISK {review:<12} melanoma    {_both(achieved['review']['melanoma'])}",
        f"                             malignancy  {_both(achieved['review']['malignancy'])}",
        f"urgent  at RISK {urgent:<12} malignancy  {_both(achieved['urgent']['malignancy'])}",
        f"prediction sets              coverage {sets['coverage']['value']:.3f}, "
        f"mean size {sets['mean_size']:.2f} of {len(CODES)}",
        "  from  " + "  ".join(f"{c} {significant(low)}" for c, low in calibration.prediction_set.items()),
        *guarantees.values(),
        ASSUMPTIONS["exchangeability"],
        calibration.report["assumes"]["prevalence"],
    ]
    return "\n".join(lines)


def _sets(calibration: Calibration, probabilities: Floats, labels: Ints) -> dict[str, Any]:
    sets = prediction_sets(probabilities, calibration.prediction_set)
    covered = sets[np.arange(len(labels)), labels]
    groups = {"+".join(group): rate(covered[in_group(group, labels)]) for group in GROUPS}
    return {**prediction_set_report(sets, labels), "coverage_of_groups": groups}


def _review(calibration: Calibration, melanomas: int, targets: Targets) -> str:
    needed = fewest_examples(targets.sensitivity, targets.confidence)
    share, confidence = _percent(targets.sensitivity), _percent(targets.confidence)
    if melanomas < needed:
        return (
            f"{_count(melanomas, 'melanoma')} cannot prove a sensitivity of {share} with {confidence} "
            f"confidence, which takes {needed}: everything is reviewed."
        )
    if calibration.review == 0:
        return "RISK is 0 for malignant lesions here, so no threshold finds them: everything is reviewed."
    return (
        f"With {confidence} confidence review finds at least {share} of melanomas and at least {share} of "
        "malignant and pre-malignant lesions, both at once."
    )


def _urgent(benign: int, targets: Targets) -> str:
    needed = fewest_examples(targets.specificity, targets.confidence)
    share, confidence = _percent(targets.specificity), _percent(targets.confidence)
    if benign < needed:
        return (
            f"{_count(benign, 'benign lesion')} cannot prove a specificity of {share} with {confidence} "
            f"confidence, which takes {needed}: only a RISK of 1 is urgent."
        )
    return f"With {confidence} confidence at least {share} of benign lesions are not urgent."


def _set_guarantee(labels: Ints, targets: Targets) -> str:
    sizes = {group: int(in_group(group, labels).sum()) for group in GROUPS}
    small = [code for group, n in sizes.items() if too_few(n, targets.coverage) for code in group]
    return (
        f"Of the images of each group of conditions at least {_percent(targets.coverage)} get a set that "
        "holds their condition, on average over calibration sets."
        + (f" Too few examples of {', '.join(small)}: always in the set." if small else "")
    )


def _both(detection: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {detection[name]['value']:.3f} (n={detection[name]['n']})"
        if detection[name]["n"]
        else f"{name} unknown"
        for name in ("sensitivity", "specificity")
    )


def _prevalence(calibration: Calibration, source: str) -> str:
    shares = calibration.frequencies
    named = ", ".join(f"{code} {100 * share:.3g}%" for code, share in zip(CODES, shares, strict=True))
    said = (
        f"Probabilities and RISK are those of a clinic that sees all conditions equally often ({source})."
        if len(set(shares)) == 1
        else "Probabilities are those of a clinic that sees all conditions equally often. RISK is the "
        f"probability of a malignant or pre-malignant lesion at the bundle's prevalence: {named} ({source})."
    )
    return f"{said} {NOT_OF_THESE}" if source in (BY_HAND, EARLIER) else said


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
