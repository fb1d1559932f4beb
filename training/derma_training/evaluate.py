"""A bundle's answers to labelled images, measured.

    examples = part_of(bundle, read(folder), "test")
    report = evaluate(bundle, examples)
    print(summary(report))

The answers measured are those of the network that is exported; the figures are those of
``derma_semantics.evaluation``, which also measures the served model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from derma_semantics.evaluation.metrics import Floats, Ints
from derma_semantics.evaluation.report import Answers, report_on, summary, write_report
from derma_semantics.evaluation.truth import Case
from derma_training.bundle import Bundle
from derma_training.bundle.split import split_names
from derma_training.data import Example, load_pixels
from derma_training.network.classifier import Classifier

__all__ = ["answers", "evaluate", "summary"]

SEEN = "Training saw some of these images: the figures flatter."


def evaluate(
    bundle: Bundle, examples: Sequence[Example], *, part: str = "test", out: Path | None = None
) -> dict[str, Any]:
    """Measure the bundle as it would be served: adapter merged, calibrated, with triage and sets.

    Args:
        part: what ``part_of`` gave the examples for.
        out: also write report, plots and submission into this folder.
    """
    cases, given = [_case(example) for example in examples], _answers(bundle, examples)
    note = {"note": SEEN} if part == "all" and split_names(bundle) & {e.name for e in examples} else {}
    if out is None:
        return {"part": part, **note, **report_on(cases, given)}
    facts = {"scorer": "derma-train evaluate", "bundle": bundle.name, "bundle_digest": bundle.digest}
    return write_report(out, cases, given, {**facts, "part": part, **note})


def answers(bundle: Bundle, examples: Sequence[Example]) -> tuple[Floats, Ints]:
    """Probabilities, float64 (N, 7), and triage, int (N,), of every example."""
    given = _answers(bundle, examples)
    return given.probabilities, given.triage


def _answers(bundle: Bundle, examples: Sequence[Example]) -> Answers:
    calibration = bundle.calibration
    given = Classifier.from_bundle(bundle).in_batches(load_pixels(examples))
    return Answers(
        probabilities=given.probabilities.double().numpy(),
        risk=given.risk.squeeze(1).double().numpy(),
        triage=given.triage.squeeze(1).long().numpy(),
        prediction_sets=given.prediction_set.numpy(),
        thresholds={"review": calibration.review, "urgent": calibration.urgent},
    )


def _case(example: Example) -> Case:
    return Case(example.name, example.condition, example.lesion, example.age, example.sex, example.site)
