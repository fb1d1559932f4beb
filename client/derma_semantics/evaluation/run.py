"""Ask the served model about every labelled image, once, and report.

    with DermaClient() as client:
        answers = ask(client, cases, out)            # continues where an earlier call stopped
    report = report_run(out, cases, answers, truth)

Answers are appended to ``answers.jsonl`` as they come. What the service does not answer goes to
``errors.csv``, counts as wrong (see ``metrics``) and is asked again by the next call.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from derma_semantics.bulk.cells import cell
from derma_semantics.bulk.journal import Journal, Record
from derma_semantics.client import IN_FLIGHT, DermaClient
from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.contract import Triage
from derma_semantics.domain.diagnosis import Diagnosis
from derma_semantics.domain.errors import AccessDenied, ServiceUnavailable
from derma_semantics.evaluation.metrics import UNDECIDED
from derma_semantics.evaluation.report import Answers, write_report
from derma_semantics.evaluation.truth import Case

JOURNAL = "answers.jsonl"
ERRORS = "errors.csv"


def evaluate_service(
    client: DermaClient,
    cases: Sequence[Case],
    out: Path,
    truth: Path,
    *,
    progress: Callable[[int], object] = lambda _: None,
) -> dict[str, Any]:
    """Ask, measure and write everything into ``out``.

    Args:
        cases: with paths, those of ``truth``.
        progress: told how many more images are done.

    Raises:
        ServiceUnavailable: the service went away or is overloaded; what was answered is kept.
        ValueError: ``out`` holds answers of other weights or to other images.
    """
    out.mkdir(parents=True, exist_ok=True)
    errors: dict[str, Exception] = {}
    served = client.bundle()
    with Journal(out / JOURNAL, served.digest) as journal:
        _check_foreign(journal, cases)
        progress(len(journal.names))
        for batch in _batches([case for case in cases if case.name not in journal.names]):
            errors |= _ask(client, batch, journal)
            progress(len(batch))
        records = {record["image"]: record for record in journal.records()}
    _write_errors(out / ERRORS, errors)
    stated = served.calibration or {}
    thresholds = {level: stated[level] for level in ("review", "urgent") if level in stated}
    answers = replace(_answers(cases, records), thresholds=thresholds)
    return write_report(out, cases, answers, _facts(records, cases, errors), truth=truth)


def _check_foreign(journal: Journal, cases: Sequence[Case]) -> None:
    if foreign := sorted(journal.names.keys() - {case.name for case in cases}):
        raise ValueError(
            f"{journal.path} holds answers to {len(foreign)} images that are not in the ground truth, "
            f"e.g. {foreign[0]}: give another --out"
        )


def _ask(client: DermaClient, batch: Sequence[Case], journal: Journal) -> dict[str, Exception]:
    """Keep the answers; returns what went wrong with single images."""
    answers = client.classify([case.path for case in batch], return_exceptions=True)
    pairs = [(case.name, answer) for case, answer in zip(batch, answers, strict=True)]
    for name, answer in pairs:
        if isinstance(answer, Diagnosis):
            journal.append(name, answer)
    errors = {name: answer for name, answer in pairs if isinstance(answer, Exception)}
    for error in errors.values():
        if isinstance(error, (ServiceUnavailable, AccessDenied)):
            raise error
    return errors


def _batches(cases: Sequence[Case]) -> Iterable[Sequence[Case]]:
    return (cases[start : start + IN_FLIGHT] for start in range(0, len(cases), IN_FLIGHT))


def _answers(cases: Sequence[Case], records: dict[str, Record]) -> Answers:
    probabilities = np.zeros((len(cases), len(CODES)))
    risk = np.zeros(len(cases))
    triage = np.full(len(cases), UNDECIDED)
    sets = np.zeros((len(cases), len(CODES)), dtype=bool)
    for row, case in enumerate(cases):
        if record := records.get(case.name):
            probabilities[row] = [record["probabilities"][code] for code in CODES]
            risk[row] = record["risk"]
            triage[row] = Triage[record["triage"].upper()]
            sets[row] = [code in record["prediction_set"] for code in CODES]
    return Answers(probabilities, risk, triage, sets)


def _facts(records: dict[str, Record], cases: Sequence[Case], errors: dict[str, Exception]) -> dict[str, Any]:
    about = next(iter(records.values()), {})
    return {
        "scorer": "derma evaluate",
        "bundle": {key: about.get(key) for key in ("bundle", "bundle_digest", "precision", "version")},
        "refused": {"images": len(errors), "listed_in": ERRORS, "counted": "as wrong"},
        "lesions_known": any(case.lesion != case.name for case in cases),
    }


def _write_errors(path: Path, errors: dict[str, Exception]) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "error", "message"])
        for name, error in errors.items():
            rows.writerow(map(cell, (name, type(error).__name__, str(error))))
