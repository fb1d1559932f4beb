"""The ISIC challenge's own scorer, on a submission in the challenge's own format.

    write_submission(Path("submission.csv"), names, probabilities)
    figures = score(Path("GroundTruth.csv"), Path("submission.csv"))
    figures["balanced_accuracy"], figures["macro_average"]["auc"], figures["notes"]

Rules of ``isic-challenge-scoring`` 5.6, from its source:

- *balanced_accuracy*: mean recall of the top-1 condition over the conditions that occur.
  An image whose maximum is shared by two conditions is "undecided", thus wrong
  (``metrics._to_labels``; it means to warn, and does not). All-zero rows are such ties.
- *sensitivity, specificity, ppv, npv, dice, accuracy* are of one condition against the rest
  at probability > 0.5, strictly (``classification._category_score``): several conditions or
  none may be "positive". They are no top-1 figures and differ from ``metrics.detection``.
  Where a denominator is 0 the scorer gives 1.0, a gift.
- *auc, ap*: scikit-learn's, ties counted half. *auc_sens_80*: the part of the area above 80 %
  sensitivity, not rescaled, so that 0.2 is perfect.
- *macro_average*: plain means over the conditions.
- ``score_weight`` columns of the ground truth weigh images; ISIC_0035068 always weighs 0.
- Submissions must hold exactly the truth's images and columns, floats in [0, 1], none missing;
  rows need not sum to 1. A suffix ".jpg" of names is cut.
- A condition without images makes its AUC undefined and its ``auc_sens_80`` crash, so such
  conditions, and a condition that is all there is, are null here, and so is the macro average.

The scorer is called below its CSV parser, whose ``DataFrame.applymap`` pandas 3 no longer has
(isic-challenge-scoring 5.6); ``write_submission`` makes the checks that the parser would make.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from isic_challenge_scoring import metrics
from isic_challenge_scoring.classification import ClassificationMetric, ClassificationScore
from isic_challenge_scoring.load_csv import parse_truth_csv, sort_rows, validate_rows
from isic_challenge_scoring.types import ScoreError

from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.regular import open_regular, read_regular
from derma_semantics.evaluation.metrics import Floats

SCORER = "isic-challenge-scoring"
FIGURES = ("accuracy", "sensitivity", "specificity", "dice", "ppv", "npv", "auc", "auc_sens_80", "ap")


def write_submission(path: Path, names: Sequence[str], probabilities: Floats) -> None:
    """Write image,MEL,NV,BCC,AKIEC,BKL,DF,VASC; images without an answer are all zero.

    Raises:
        ValueError: a name twice, or a probability outside [0, 1].
    """
    if len(set(names)) != len(names):
        raise ValueError(f"{path}: {len(names) - len(set(names))} images would stand there twice")
    if bad := [n for n, row in zip(names, probabilities, strict=True) if not _probable(row)]:
        raise ValueError(f"{path}: image {bad[0]} has a probability outside [0, 1]")
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", *CODES])
        rows.writerows([name, *map(float, row)] for name, row in zip(names, probabilities, strict=True))


def score(truth: Path, submission: Path) -> dict[str, Any]:
    """Run the official scorer.

    Raises:
        ValueError: the two files do not hold the same images.
    """
    with _quiet(), io.TextIOWrapper(open_regular(truth), "utf-8-sig") as file:
        labels, weights = parse_truth_csv(file)
        labels = labels[list(CODES)]
        answers = pd.read_csv(io.BytesIO(read_regular(submission)), index_col="image")[list(CODES)]
        try:
            validate_rows(labels, answers)
        except ScoreError as exc:
            raise ValueError(f"{submission} does not match {truth}: {exc}") from exc
        sort_rows(labels)
        sort_rows(answers)
        return {
            "scorer": f"{SCORER} {version(SCORER)}",
            **_scored(labels, answers, weights.loc[labels.index]),
        }


def _scored(labels: pd.DataFrame, answers: pd.DataFrame, weights: pd.DataFrame) -> dict[str, Any]:
    counted = labels[weights.score_weight > 0]
    known = [code for code in CODES if 0 < counted[code].sum() < len(counted)]
    # One condition's figures do not depend on the other columns, so leaving some out is safe;
    # the balanced accuracy does, and is taken over all of them.
    detail = _detail(labels[known], answers[known], weights) if known else {}
    return {
        "balanced_accuracy": float(
            metrics.balanced_multiclass_accuracy(labels, answers, weights.score_weight)
        ),
        "macro_average": {
            name: float(np.mean([detail[code][name] for code in CODES])) if len(known) == len(CODES) else None
            for name in FIGURES
        },
        "per_category": {code: detail.get(code, dict.fromkeys(FIGURES)) for code in CODES},
        "notes": list(_notes(labels, counted, known)),
    }


def _detail(labels: pd.DataFrame, answers: pd.DataFrame, weights: pd.DataFrame) -> dict[str, Any]:
    result = ClassificationScore(labels, answers, weights, ClassificationMetric.BALANCED_ACCURACY)
    return {
        str(code): {name: float(row[name]) for name in FIGURES}
        for code, row in result.per_category.iterrows()
    }


def _notes(labels: pd.DataFrame, counted: pd.DataFrame, known: list[str]) -> Iterator[str]:
    if absent := [code for code in CODES if code not in known]:
        yield (
            f"No figures for {', '.join(absent)} and no macro average: these have no image, or no other has. "
            "Balanced accuracy is the mean over the conditions that occur."
        )
    if len(counted) < len(labels):
        yield f"The official scorer leaves out {len(labels) - len(counted)} images of weight 0."


def _probable(row: Floats) -> bool:
    return bool(np.isfinite(row).all() and (row >= 0).all() and (row <= 1).all())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the scorer's calls of what pandas deprecates."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"isic_challenge_scoring(\.|$)")
        yield
