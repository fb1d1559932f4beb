"""Several bundles side by side, with mean and spread: folds, seeds, or before and after.

    table = compare({"fold 0": metrics_of(bundle), "fold 1": metrics_of(other)})
    print(markdown(table))

What is compared is what each bundle measured of itself, or an evaluation of it: ``metrics.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from derma_semantics.evaluation.report import METRICS
from derma_training.bundle import MANIFEST, Bundle

# Names in the table, and where the figure is.
FIGURES = {
    "balanced accuracy": "balanced_accuracy.value",
    "accuracy": "accuracy",
    "macro AUC": "macro_auc",
    "melanoma: AUC": "conditions.MEL.auc",
    "melanoma as first: sensitivity": "melanoma.sensitivity.value",
    "melanoma as first: specificity": "melanoma.specificity.value",
    "melanoma: specificity at 95 % sensitivity": "melanoma_specificity_at_95_sensitivity",
    "weighed by frequency, melanoma: AUC": "at_prevalence.melanoma_auc",
    "weighed by frequency, melanoma: specificity at 95 % sensitivity": (
        "at_prevalence.melanoma_specificity_at_95_sensitivity"
    ),
    "review: sensitivity for melanoma": "triage.review.melanoma.sensitivity.value",
    "review: specificity for melanoma": "triage.review.melanoma.specificity.value",
    "urgent: sensitivity for malignancy": "triage.urgent.malignancy.sensitivity.value",
    "urgent: specificity for malignancy": "triage.urgent.malignancy.specificity.value",
    "RISK: AUC for malignancy": "risk.malignancy_auc",
    "RISK: expected calibration error": "risk.expected_calibration_error",
    "expected calibration error": "expected_calibration_error",
    "one unseen paraphrase a condition: balanced accuracy": "text.wording.mean",
    "unseen paraphrases averaged: balanced accuracy": "text.wording.paraphrases_together",
    "linear head: balanced accuracy": "text.head.linear",
    "MLP head: balanced accuracy": "text.head.mlp",
    "texts over the better head": "text.head.text_minus_best",
}

Table = dict[str, dict[str, float | None]]


def compare(measured: Mapping[str, dict[str, Any]]) -> Table:
    """Figure by figure, one value a column (None where it lacks the figure), ``mean`` and ``sd``.

    ``sd`` is the sample standard deviation; both are None where a column lacks the figure.

    Raises:
        ValueError: a name is that of a column.
    """
    if taken := {"mean", "sd"} & measured.keys():
        raise ValueError(f"no bundle may be called {', '.join(sorted(taken))}: that is a column of the table")
    table: Table = {}
    for figure, place in FIGURES.items():
        values = {name: _at(metrics, place) for name, metrics in measured.items()}
        known = [value for value in values.values() if value is not None]
        whole = len(known) == len(values)
        table[figure] = {
            **values,
            "mean": mean(known) if whole else None,
            "sd": stdev(known) if whole and len(known) > 1 else None,
        }
    return table


def metrics_of(folder: Path) -> dict[str, Any]:
    """What a bundle measured of itself, or what ``derma-train evaluate`` and ``derma evaluate`` wrote.

    Raises:
        BundleError: it is a bundle, and was altered.
        ValueError: nothing was measured.
    """
    if (folder / MANIFEST).is_file():
        Bundle.open(folder)
    try:
        metrics: dict[str, Any] = json.loads((folder / METRICS).read_text())
    except FileNotFoundError:
        raise ValueError(f"{folder} has no {METRICS}: it was never measured") from None
    return metrics


def commits_of(folders: Iterable[Path]) -> list[str]:
    """The commits whose code made these bundles, abbreviated; evaluations name none."""
    manifests = [folder / MANIFEST for folder in folders]
    made = [json.loads(path.read_text()).get("git_commit") for path in manifests if path.is_file()]
    return sorted({(commit or "unknown")[:7] for commit in made})


def markdown(table: Table) -> str:
    """The table in Markdown, three decimals, a dash for what is missing."""
    columns = list(next(iter(table.values())))
    rows = [["", *columns], ["---"] * (len(columns) + 1)]
    for figure, values in table.items():
        rows.append([figure, *("-" if v is None else f"{v:.3f}" for v in values.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _at(metrics: Any, place: str) -> float | None:
    for key in place.split("."):
        metrics = metrics.get(key) if isinstance(metrics, dict) else None
    return None if metrics is None else float(metrics)
