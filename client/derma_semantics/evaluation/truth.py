"""Labelled images in the official ISIC layout, as a table.

    cases = read_truth(Path("GroundTruth.csv"), images=Path("Input"), metadata=Path("metadata.csv"))
    cases[0].name, CODES[cases[0].condition], cases[0].lesion, cases[0].path

The ground truth has the columns image,MEL,NV,BCC,AKIEC,BKL,DF,VASC with one 1.0 a row.
Metadata is optional and may come from HAM10000 (``HAM10000_metadata.csv``), the challenge
(``ISIC2018_Task3_Training_LesionGroupings.csv``) or the ISIC archive; without it every image
is a lesion of its own.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.formats import CLIENT_SUFFIXES
from derma_semantics.evaluation.tables import Facts, read_facts, read_one_hot
from derma_semantics.imaging.folders import located

# The challenge's weight columns; the official scorer reads them, our own figures do not.
WEIGHTS = ("score_weight", "validation_weight")


@dataclass(frozen=True)
class Case:
    """One labelled image; ``condition`` is an index into ``CONDITIONS``, None is unknown."""

    name: str
    condition: int
    lesion: str
    age: float | None = None
    sex: str | None = None
    site: str | None = None
    path: Path | None = None


def read_truth(truth: Path, images: Path | None = None, metadata: Path | None = None) -> list[Case]:
    """Read the ground truth, in its order, and what goes with it.

    Args:
        images: a folder of the images, in any format that the client reads.

    Raises:
        ValueError: a column, row or image is missing or wrong; names file, row and problem.
    """
    labelled = read_one_hot(truth, CODES, allowed=WEIGHTS)
    cases = [Case(name, CODES.index(code), lesion=name) for name, code in labelled]
    if images is not None:
        paths = located([images], [case.name for case in cases], CLIENT_SUFFIXES)
        cases = [replace(case, path=path) for case, path in zip(cases, paths, strict=True)]
    return _described(cases, metadata) if metadata is not None else cases


def write_truth(path: Path, cases: Sequence[Case]) -> None:
    """The cases' conditions as a ground-truth CSV."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", *CODES])
        rows.writerows([c.name, *(float(i == c.condition) for i in range(len(CODES)))] for c in cases)


def _described(cases: list[Case], metadata: Path) -> list[Case]:
    facts = read_facts(metadata)
    if absent := [case.name for case in cases if case.name not in facts]:
        raise ValueError(f"{metadata} lacks {len(absent)} of {len(cases)} images, e.g. {absent[0]}")
    return [_with(case, facts[case.name]) for case in cases]


def _with(case: Case, facts: Facts) -> Case:
    return replace(case, lesion=facts.lesion or case.name, age=facts.age, sex=facts.sex, site=facts.site)
