"""Shared by the readers of data sets: image folders, and the words for conditions.

paths = find_images(folder, ["HAM10000_images_part_1"], ["ISIC_0024306"])
condition_of("melanocytic_Nevi")                    # 1
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from derma_semantics.domain.conditions import CONDITIONS
from derma_semantics.imaging.folders import located
from derma_training.data.table import Example

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


def find_images(folder: Path, candidates: Iterable[str], names: Sequence[str]) -> list[Path]:
    """The files of these images, which lie in one or several of the candidate folders.

    Raises:
        ValueError: no such folder exists, or images are in none of them.
    """
    found = [folder / name for name in candidates if (folder / name).is_dir()]
    if not found:
        raise ValueError(f"{folder} has no folder of images: expected {' or '.join(candidates)}")
    return located(found, names)
