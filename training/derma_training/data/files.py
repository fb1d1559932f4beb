"""What the readers of data sets share: tables, image folders, and the words for conditions.

rows = read_csv(folder / "HAM10000_metadata.csv")
paths = find_images(folder, ["HAM10000_images_part_1"], [row["image_id"] for row in rows])
condition_of("melanocytic_Nevi")                    # 1
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from derma_semantics.domain.conditions import CONDITIONS
from derma_semantics.domain.contract import IMAGE_SUFFIXES
from derma_training.data.table import Example

Row = Mapping[str, str]

ABSENT = {"", "unknown", "nan", "none", "null", "na", "n/a"}
WORDS = {
    word.lower(): index
    for index, c in enumerate(CONDITIONS)
    for word in (c.code, c.name, c.ham10000_dx, c.marmal88_dx)
}


@dataclass(frozen=True)
class Reading:
    """What a source holds: its table, and how many images of no condition of ours, by their label."""

    examples: list[Example]
    left_out: dict[str, int] = field(default_factory=dict)


def condition_of(word: str) -> int | None:
    """The index of the condition that a code, a name or a ``dx`` means, whatever its case."""
    return WORDS.get(word.strip().lower())


def text(value: object) -> str | None:
    """A cell's text; None where the data set says in any of its ways that it does not know."""
    cell = str(value).strip()
    return None if cell.lower() in ABSENT else cell


def number(value: object) -> float | None:
    """A cell's number, by the same rule.

    Raises:
        ValueError: it is not a number.
    """
    cell = text(value)
    return None if cell is None else float(cell)


def read_csv(path: Path, *columns: str) -> list[dict[str, str]]:
    """The rows of a table that must have these columns.

    Raises:
        ValueError: the file or a column is missing.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if lacking := [column for column in columns if column not in (reader.fieldnames or [])]:
            raise ValueError(f"{path} lacks the column {lacking[0]}: it has {reader.fieldnames}")
        return list(reader)


def one_hot(row: Row, columns: Sequence[str], where: str) -> str:
    """The one column that holds 1.

    Raises:
        ValueError: none does, or several do.
    """
    hot = [column for column in columns if float(row[column]) == 1]
    if len(hot) != 1:
        raise ValueError(f"{where} has {len(hot)} conditions, expected exactly one of {', '.join(columns)}")
    return hot[0]


def images_in(folder: Path) -> list[Path]:
    """The images directly in a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def find_images(folder: Path, candidates: Iterable[str], names: Sequence[str]) -> list[Path]:
    """The files of these images, which lie in one or several of the candidate folders.

    Raises:
        ValueError: no such folder exists, or images are in none of them.
    """
    found = [folder / name for name in candidates if (folder / name).is_dir()]
    if not found:
        raise ValueError(f"{folder} has no folder of images: expected {' or '.join(candidates)}")
    paths = {path.stem: path for images in found for path in images_in(images)}
    if absent := [name for name in names if name not in paths]:
        where = " and ".join(map(str, found))
        raise ValueError(f"{where} lacks {len(absent)} of {len(names)} images, e.g. {absent[0]}")
    return [paths[name] for name in names]
