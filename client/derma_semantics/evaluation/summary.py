"""A report's main figures for a terminal.

    print(summary(report))
    print(summary(report, subgroups=False))

Accuracy is printed only beside balanced accuracy, and sensitivity only beside specificity.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def summary(report: dict[str, Any], *, subgroups: bool = True) -> str:
    """Lines of text; "-" is a figure that too few images state."""
    lines = [*_counts(report), *_main(report), *_conditions(report), *_official(report)]
    return "\n".join([*lines, *(_subgroups(report) if subgroups else ())])


def _counts(report: dict[str, Any]) -> Iterator[str]:
    known = "" if report.get("lesions_known", True) else "  (no lesion ids: each image is taken for one)"
    yield f"images              {report['images']} of {report['lesions']} lesions{known}"
    if note := report.get("note"):
        yield f"                    {note}"
    if report["unanswered"]:
        yield f"unanswered          {report['unanswered']}, counted as wrong"


def _main(report: dict[str, Any]) -> Iterator[str]:
    intervals = report["intervals_95"]
    balanced = report["balanced_accuracy"]
    review, urgent = report["triage"]["review"], report["triage"]["urgent"]
    yield (
        f"balanced accuracy   {balanced['value']:.3f}{_range(balanced['interval_95'])}"
        f"   accuracy {report['accuracy']:.3f}{_range(intervals['accuracy'])}"
    )
    yield f"macro AUC           {_n(report['macro_auc'])}{_range(intervals['macro_auc'])}"
    yield f"melanoma as top 1   {_both(report['melanoma'])}"
    yield f"triage review       {_both(review['melanoma'])} for melanoma"
    yield f"                    {_both(review['malignancy'])} for malignancy"
    yield f"triage urgent       {_both(urgent['melanoma'])} for melanoma"
    yield f"                    {_both(urgent['malignancy'])} for malignancy"
    if risk := report.get("risk"):  # older reports have none
        area, mean, malignant = risk["malignancy_auc"], risk["mean"], risk["malignant"]["value"]
        yield (
            f"RISK                AUC {_n(area)} for malignancy, mean {_n(mean)} where "
            f"{_n(malignant)} are malignant"
        )
    for level in (90, 95):
        key = f"melanoma_specificity_at_{level}_sensitivity"
        yield (
            f"melanoma            sensitivity {level / 100:.3f}, "
            f"specificity {_n(report[key])}{_range(intervals.get(key))}"
        )
    weighed, key = report["at_prevalence"], "melanoma_specificity_at_95_sensitivity"
    yield (
        f"  by frequency      sensitivity 0.950, specificity {_n(weighed[key])}"
        f"{_range(intervals[f'{key}_at_prevalence'])}   AUC {_n(weighed['melanoma_auc'])}"
    )
    yield (
        f"calibration         ECE {_n(report['expected_calibration_error'])}"
        f"{_range(intervals['expected_calibration_error'])}   Brier {_n(report['brier'])}"
    )
    if sets := report.get("prediction_sets"):
        coverage, size = sets["coverage"]["value"], sets["mean_size"]
        yield f"prediction sets     coverage {_n(coverage)}, mean size {_n(size)}"


def _conditions(report: dict[str, Any]) -> Iterator[str]:
    yield f"{'condition':<18}  sensitivity         specificity         AUC"
    for code, figures in report["conditions"].items():
        found, spared = (
            f"{_n(figures[name]['value'])} (n={figures[name]['n']})"
            for name in ("sensitivity", "specificity")
        )
        yield f"  {code:<16}  {found:<18}  {spared:<18}  {_n(figures['auc'])}"


def _official(report: dict[str, Any]) -> Iterator[str]:
    theirs = report["official"]
    macro = theirs["macro_average"]
    yield f"official scorer     {theirs['scorer']}"
    yield (
        f"                    balanced accuracy {theirs['balanced_accuracy']:.3f}"
        f"   macro AUC {_n(macro['auc'])}   macro AP {_n(macro['ap'])}"
    )
    yield (
        f"                    at probability > 0.5, macro: sensitivity {_n(macro['sensitivity'])}, "
        f"specificity {_n(macro['specificity'])}"
    )
    for note in theirs["notes"]:
        yield f"                    {note}"


def _subgroups(report: dict[str, Any]) -> Iterator[str]:
    """Groups that state a figure, one a line; how many others there are."""
    yield f"{'subgroup':<26}images  melanoma AUC      review for malignancy: sensitivity, specificity"
    for way, groups in report["subgroups"].items():
        stated = {name: figures for name, figures in groups.items() if _states(figures)}
        for name, figures in stated.items():
            yield f"  {f'{way} {name}':<24}{_group(figures)}"
        if others := [figures["images"] for name, figures in groups.items() if name not in stated]:
            yield f"  {way}: {len(others)} more with {sum(others)} images, too few to state a figure"


def _states(figures: dict[str, Any]) -> bool:
    rates = (figures["melanoma_auc"], figures["review"]["malignancy"]["sensitivity"])
    return any(rate["value"] is not None for rate in rates)


def _group(figures: dict[str, Any]) -> str:
    area, review = figures["melanoma_auc"], figures["review"]["malignancy"]
    rates = ", ".join(
        f"{_n(review[name]['value'])} (n={review[name]['n']})" for name in ("sensitivity", "specificity")
    )
    melanoma = f"{_n(area['value'])} (n={area['positives']})"
    return f"{figures['images']:>6}  {melanoma:<16}  {rates}"


def _both(detection: dict[str, Any]) -> str:
    sensitivity, specificity = detection["sensitivity"]["value"], detection["specificity"]["value"]
    return f"sensitivity {_n(sensitivity)}, specificity {_n(specificity)}"


def _n(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _range(interval: list[float] | None) -> str:
    return f"  ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
