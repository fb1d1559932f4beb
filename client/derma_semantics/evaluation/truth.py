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
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from derma_semantics.domain.conditions import CODES

# The challenge's weight columns; the official scorer reads them, our own figures do not.
WEIGHTS = ("score_weight", "validation_weight")
SUFFIXES = (".jpg", ".jpeg", ".png")
# Names of one thing in HAM10000, the challenge's groupings and the ISIC archive.
NAME = ("image_id", "image", "isic_id")
LESION = ("lesion_id",)
AGE = ("age", "age_approx")
SEX = ("sex",)
SITE = ("localization", "anatom_site_general")
NOTHING = ("", "nan", "na", "n/a", "none", "null", "unknown")


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

    Raises:
        ValueError: a column, row or image is missing or wrong; names file, row and problem.
    """
    cases = _read_cases(truth)
    if images is not None:
        cases = _located(cases, images, truth)
    return _described(cases, metadata) if metadata is not None else cases


def write_truth(path: Path, cases: Sequence[Case]) -> None:
    """The cases' conditions as a ground-truth CSV."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", *CODES])
        rows.writerows([c.name, *(float(i == c.condition) for i in range(len(CODES)))] for c in cases)


def _read_cases(truth: Path) -> list[Case]:
    cases: dict[str, Case] = {}
    for line, row in _rows(truth, needed=("image", *CODES), allowed=WEIGHTS):
        name = row["image"]
        if not name or name in cases:
            raise ValueError(f"{truth}, line {line}: image {name!r} {'again' if name else 'has no name'}")
        cases[name] = Case(name, _condition(row, f"{truth}, line {line}: image {name}"), lesion=name)
    if not cases:
        raise ValueError(f"{truth} holds no image")
    return list(cases.values())


def _condition(row: dict[str, str], where: str) -> int:
    values = [_number(row[code], f"{where}, {code}") for code in CODES]
    if any(value not in (0.0, 1.0) for value in values) or values.count(1.0) != 1:
        raise ValueError(f"{where} has {values.count(1.0)} conditions at 1.0, expected one and 0.0 elsewhere")
    return values.index(1.0)


def _located(cases: list[Case], images: Path, truth: Path) -> list[Case]:
    there = {path.name: path for path in images.iterdir() if path.suffix.lower() in SUFFIXES}
    by_stem = {path.stem: path for path in sorted(there.values(), reverse=True)}
    if absent := [case.name for case in cases if case.name not in by_stem]:
        raise ValueError(
            f"{images} lacks {len(absent)} of the {len(cases)} images of {truth}, e.g. {absent[0]} "
            f"({', '.join(SUFFIXES)})"
        )
    return [replace(case, path=by_stem[case.name]) for case in cases]


def _described(cases: list[Case], metadata: Path) -> list[Case]:
    about = {}
    for line, row in _rows(metadata):
        about[_first(row, NAME, f"{metadata} has none of the columns {', '.join(NAME)}")] = (line, row)
    if absent := [case.name for case in cases if case.name not in about]:
        raise ValueError(f"{metadata} lacks {len(absent)} of {len(cases)} images, e.g. {absent[0]}")
    return [_with(case, metadata, *about[case.name]) for case in cases]


def _with(case: Case, metadata: Path, line: int, row: dict[str, str]) -> Case:
    age = _known(row, AGE)
    return replace(
        case,
        lesion=_known(row, LESION) or case.name,
        age=_number(age, f"{metadata}, line {line}: age") if age else None,
        sex=_known(row, SEX).lower() or None,
        site=_known(row, SITE).lower() or None,
    )


def _rows(
    path: Path, needed: Sequence[str] = (), allowed: Sequence[str] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields of every row."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if absent := [name for name in needed if name not in columns]:
            raise ValueError(f"{path} lacks the columns {', '.join(absent)}")
        if allowed is not None and (extra := [c for c in columns if c not in (*needed, *allowed)]):
            raise ValueError(
                f"{path} has the unknown columns {', '.join(extra)}: expected {', '.join(needed)}"
            )
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"{path}, line {reader.line_num}: expected {len(columns)} fields")
            yield reader.line_num, {key: value.strip() for key, value in row.items()}


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where} is {text!r}, expected a number")
    return value


def _first(row: dict[str, str], names: Sequence[str], problem: str) -> str:
    for name in names:
        if name in row:
            return row[name]
    raise ValueError(problem)


def _known(row: dict[str, str], names: Sequence[str]) -> str:
    value = next((row[name] for name in names if name in row), "")
    return "" if value.lower() in NOTHING else value
