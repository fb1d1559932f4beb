"""Everything that is said of a set of answers, in a folder that others can check.

    answers = Answers(probabilities, risk, triage)
    report = write_report(Path("out"), cases, answers, {"model": "derma-mini"})
    print(summary(report))

The folder holds ``metrics.json``, ``truth.csv`` and ``submission.csv`` (the challenge's
format, for the official scorer), ``confusion.png``, ``roc.png``, ``reliability.png`` and ``risk.png``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from derma_semantics.domain.contract import Triage
from derma_semantics.evaluation import official, plots
from derma_semantics.evaluation.bootstrap import DRAWS, intervals_95
from derma_semantics.evaluation.metrics import (
    Bools,
    Floats,
    Ints,
    is_answered,
    measure,
    prediction_set_report,
    risk_report,
    triage_report,
)
from derma_semantics.evaluation.subgroups import subgroups
from derma_semantics.evaluation.summary import summary
from derma_semantics.evaluation.truth import Case, write_truth

__all__ = ["Answers", "report_on", "summary", "write_report"]

METRICS = "metrics.json"
TRUTH = "truth.csv"
SUBMISSION = "submission.csv"


@dataclass(frozen=True)
class Answers:
    """One row a case.

    Attributes:
        probabilities: shape (N, 7); zeros where there is no answer.
        risk: RISK, shape (N,); zero where there is no answer.
        triage: values of ``Triage``, shape (N,); -1 where there is no answer.
        prediction_sets: conformal sets, bool (N, 7), where the model gives them.
        thresholds: on RISK, of ``review`` and ``urgent``, where they are known.
    """

    probabilities: Floats
    risk: Floats
    triage: Ints
    prediction_sets: Bools | None = None
    thresholds: Mapping[str, float] | None = None


def report_on(
    cases: Sequence[Case], answers: Answers, *, seed: int = 0, draws: int = DRAWS
) -> dict[str, Any]:
    """Our figures and the official scorer's, as JSON types."""
    with TemporaryDirectory() as folder:
        return {**_figures(cases, answers, seed, draws), "official": _official(Path(folder), cases, answers)}


def write_report(
    out: Path,
    cases: Sequence[Case],
    answers: Answers,
    facts: dict[str, Any] | None = None,
    *,
    truth: Path | None = None,
) -> dict[str, Any]:
    """Measure, draw and write.

    Args:
        facts: what was measured on what; they open the report.
        truth: the ground-truth CSV for the official scorer, where it holds exactly these
            cases; otherwise it is written from them.
    """
    out.mkdir(parents=True, exist_ok=True)
    report = {**(facts or {}), **_figures(cases, answers, 0, DRAWS)}
    report["official"] = _official(out, cases, answers, truth)
    labels = _labels(cases)
    plots.draw_confusion(out / "confusion.png", report["confusion"])
    plots.draw_roc(out / "roc.png", answers.probabilities, labels, report["triage"])
    plots.draw_reliability(out / "reliability.png", answers.probabilities, labels)
    answered = is_answered(answers.probabilities)
    plots.draw_risk(out / "risk.png", answers.risk[answered], labels[answered], answers.thresholds)
    (out / METRICS).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
    return report


def _figures(cases: Sequence[Case], answers: Answers, seed: int, draws: int) -> dict[str, Any]:
    labels, probabilities = _labels(cases), answers.probabilities
    report = measure(probabilities, labels)
    lesions = [case.lesion for case in cases]
    intervals = intervals_95(probabilities, labels, lesions, seed=seed, draws=draws)
    report["balanced_accuracy"]["interval_95"] = intervals["balanced_accuracy"]
    answered = is_answered(probabilities)
    report |= {
        "lesions": len(set(lesions)),
        "intervals_95": {"by": "lesion, within conditions", "draws": draws, "seed": seed, **intervals},
        "triage": {
            level.name.lower(): triage_report(answers.triage >= level, labels, answered)
            for level in (Triage.REVIEW, Triage.URGENT)
        },
        "risk": risk_report(answers.risk, labels, answered),
        "subgroups": subgroups(cases, probabilities, answers.risk, answers.triage),
    }
    if answers.prediction_sets is not None:
        report["prediction_sets"] = prediction_set_report(answers.prediction_sets, labels, answered)
    return report


def _official(
    out: Path, cases: Sequence[Case], answers: Answers, truth: Path | None = None
) -> dict[str, Any]:
    official.write_submission(out / SUBMISSION, [case.name for case in cases], answers.probabilities)
    write_truth(out / TRUTH, cases)
    return official.score(truth or out / TRUTH, out / SUBMISSION)


def _labels(cases: Sequence[Case]) -> Ints:
    return np.array([case.condition for case in cases], dtype=np.int64)
