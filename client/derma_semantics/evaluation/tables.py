"""The tables that ISIC and HAM10000 publish: the condition of each image, and facts about it.

read_one_hot(Path("GroundTruth.csv"), CODES)            # [('ISIC_0024306', 'NV'), ...]
read_isic2017(Path("ISIC-2017_Training_Part3_GroundTruth.csv"))     # the same
read_facts(Path("HAM10000_metadata.csv"))["ISIC_0024306"].lesion    # 'HAM_0000550'
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from derma_semantics.domain.conditions import CONDITIONS
from derma_semantics.domain.regular import open_regular

# Names of one thing in HAM10000, the challenges and the ISIC archive.
NAME = ("image_id", "image", "isic_id")
LESION = ("lesion_id",)
AGE = ("age", "age_approx", "age_approximate")
SEX = ("sex",)
SITE = ("localization", "anatom_site_general")
# Ways to say that a cell is not known.
UNKNOWN = frozenset({"", "nan", "na", "n/a", "none", "null", "unknown"})
CODES_2017 = {c.isic2017: c.code for c in CONDITIONS if c.isic2017 is not None}

Row = Mapping[str, str]


@dataclass(frozen=True)
class Facts:
    """Facts of an image beside its condition; None is unknown."""

    lesion: str | None = None
    age: float | None = None
    sex: str | None = None
    site: str | None = None


def read_rows(
    path: Path, needed: Collection[str] = (), allowed: Collection[str] | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Every row with its place, ``<path>, line <number>``, for messages.

    Args:
        needed: columns that must be there.
        allowed: the only other columns that may be there; None: any.

    Raises:
        ValueError: the file or a column is missing, a column is unknown, or a row has another length.
        OSError: it cannot be read, or is no regular file.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    with io.TextIOWrapper(open_regular(path), "utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if absent := [name for name in needed if name not in columns]:
            raise ValueError(f"{path} lacks the columns {', '.join(absent)}: it has {', '.join(columns)}")
        if allowed is not None and (extra := [c for c in columns if c not in (*needed, *allowed)]):
            raise ValueError(
                f"{path} has the unknown columns {', '.join(extra)}: expected {', '.join(needed)}"
            )
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise ValueError(f"{where}: expected {len(columns)} fields")
            yield where, {key: value.strip() for key, value in row.items()}


def read_one_hot(
    path: Path,
    columns: Sequence[str],
    *,
    image: str = "image",
    allowed: Collection[str] | None = None,
    zeros: bool = False,
) -> list[tuple[str, str]]:
    """Each image with its column that holds 1.0, in the order of the table.

    Args:
        columns: one condition each.
        image: the column of names.
        allowed: as for ``read_rows``.
        zeros: whether a row of zeros may be, whose column is then "".

    Raises:
        ValueError: a column is missing, an image stands there twice, or has not exactly one condition.
    """
    found: dict[str, str] = {}
    for where, row in read_rows(path, (image, *columns), allowed):
        name = row[image]
        if not name or name in found:
            raise ValueError(f"{where}: image {name!r} {'again' if name else 'has no name'}")
        found[name] = _hot(row, columns, f"{where}: image {name}", zeros)
    if not found:
        raise ValueError(f"{path} holds no image")
    return list(found.items())


def read_isic2017(path: Path) -> list[tuple[str, str]]:
    """Each image of ISIC 2017 Part 3 with its condition's code.

    Raises:
        ValueError: as ``read_one_hot``.
    """
    columns = [column for column in CODES_2017 if column]
    labelled = read_one_hot(path, columns, image="image_id", zeros=True)
    return [(name, CODES_2017[column]) for name, column in labelled]


def read_facts(path: Path, *needed: str) -> dict[str, Facts]:
    """Facts by image.

    Raises:
        ValueError: a column is missing, or an age is no number.
    """
    problem = f"{path} has none of the columns {', '.join(NAME)}"
    return {_first(row, NAME, problem): facts_of(row, where) for where, row in read_rows(path, needed)}


def facts_of(row: Row, where: str) -> Facts:
    """The facts of one row, under any of their names."""
    age, sex, site = (_cell(row, names) for names in (AGE, SEX, SITE))
    return Facts(
        lesion=known(_cell(row, LESION)),
        age=number(age, f"{where}: age"),
        sex=known(sex.lower()),
        site=known(site.lower()),
    )


def known(value: object) -> str | None:
    """A cell's text; None where the table says in any of its ways that it is unknown."""
    text = str(value).strip()
    return None if text.lower() in UNKNOWN else text


def number(value: object, where: str) -> float | None:
    """A cell's number; None where it is unknown.

    Raises:
        ValueError: it is no finite number.
    """
    text = known(value)
    return None if text is None else _number(text, where)


def _hot(row: Row, columns: Sequence[str], where: str, zeros: bool) -> str:
    values = [_number(row[column], f"{where}, {column}") for column in columns]
    hot = [column for column, value in zip(columns, values, strict=True) if value == 1]
    if any(value not in (0, 1) for value in values) or len(hot) > 1 or not (hot or zeros):
        raise ValueError(f"{where} has {len(hot)} conditions, expected exactly one 1.0 and 0.0 elsewhere")
    return hot[0] if hot else ""


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where} is {text!r}, expected a number")
    return value


def _first(row: Row, names: Sequence[str], problem: str) -> str:
    for name in names:
        if name in row:
            return row[name]
    raise ValueError(problem)


def _cell(row: Row, names: Sequence[str]) -> str:
    return next((row[name] for name in names if name in row), "")
