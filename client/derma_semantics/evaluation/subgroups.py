"""The core figures for each age band, sex and site, with what they rest on.

    table = subgroups(cases, probabilities, risk, triage)
    table["age"]["60-74"]["images"], table["sex"]["female"]["melanoma_auc"]["value"]

A figure is null where its group has too few images to state it; the counts always stand.
Balanced accuracy needs all seven conditions, or groups could not be compared; accuracy
stands only beside it. Rankings (AUC) need the fewest assumptions and compare best.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.contract import Triage
from derma_semantics.evaluation.metrics import (
    MALIGNANT,
    MELANOMA,
    Bools,
    Floats,
    Ints,
    auc,
    balanced_accuracy,
    calibration_error,
    decide,
    is_answered,
    triage_report,
)
from derma_semantics.evaluation.truth import Case

FEWEST_OF_A_CONDITION = 5
FEWEST_FOR_A_RATE = 10
FEWEST_FOR_CALIBRATION = 100
UNKNOWN = "unknown"
AGE_BANDS = ((30, "<30"), (45, "30-44"), (60, "45-59"), (75, "60-74"), (np.inf, "75+"))


def subgroups(cases: Sequence[Case], probabilities: Floats, risk: Floats, triage: Ints) -> dict[str, Any]:
    """``{"age": {band: figures}, "sex": {...}, "site": {...}}``."""
    ways: dict[str, Callable[[Case], str]] = {
        "age": lambda case: age_band(case.age),
        "sex": lambda case: case.sex or UNKNOWN,
        "site": lambda case: case.site or UNKNOWN,
    }
    return {
        name: {
            group: _core([cases[row] for row in rows], probabilities[rows], risk[rows], triage[rows])
            for group, rows in _groups(way, cases).items()
        }
        for name, way in ways.items()
    }


def age_band(age: float | None) -> str:
    """The band that holds ``age``, in years."""
    if age is None:
        return UNKNOWN
    return next(name for end, name in AGE_BANDS if age < end)


def _groups(way: Callable[[Case], str], cases: Sequence[Case]) -> dict[str, list[int]]:
    """Rows by group: ages in order, the unknown last."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, case in enumerate(cases):
        rows[way(case)].append(row)
    order = [name for _, name in AGE_BANDS]
    names = sorted(rows, key=lambda n: (n == UNKNOWN, order.index(n) if n in order else 0, n))
    return {name: rows[name] for name in names}


def _core(cases: Sequence[Case], probabilities: Floats, risk: Floats, triage: Ints) -> dict[str, Any]:
    labels = np.array([case.condition for case in cases])
    predicted, answered = decide(probabilities), is_answered(probabilities)
    counts = np.bincount(labels, minlength=len(CODES))
    balanced = bool(counts.min() >= FEWEST_OF_A_CONDITION)
    calibrated = bool(answered.sum() >= FEWEST_FOR_CALIBRATION)
    flagged = triage >= Triage.REVIEW
    return {
        "images": len(cases),
        "lesions": len({case.lesion for case in cases}),
        "images_of": dict(zip(CODES, counts.tolist(), strict=True)),
        "balanced_accuracy": balanced_accuracy(predicted, labels) if balanced else None,
        "accuracy": float((predicted == labels).mean()) if balanced else None,
        "melanoma_auc": _area(probabilities[:, MELANOMA], labels == MELANOMA),
        "malignancy_auc": _area(risk, MALIGNANT[labels]),
        "review": {name: _stated(both) for name, both in triage_report(flagged, labels, answered).items()},
        "expected_calibration_error": calibration_error(probabilities, labels) if calibrated else None,
    }


def _area(scores: Floats, truth: Bools) -> dict[str, Any]:
    positives, negatives = int(truth.sum()), int((~truth).sum())
    enough = min(positives, negatives) >= FEWEST_FOR_A_RATE
    return {
        "value": auc(scores, truth) if enough else None,
        "positives": positives,
        "negatives": negatives,
    }


def _stated(both: dict[str, Any]) -> dict[str, Any]:
    """Sensitivity and specificity, both null with their counts where either has too few."""
    if min(one["n"] for one in both.values()) >= FEWEST_FOR_A_RATE:
        return both
    return {name: {"value": None, "n": one["n"], "interval_95": None} for name, one in both.items()}
