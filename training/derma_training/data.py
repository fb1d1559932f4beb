"""ISIC 2018 Task 3 as a table, split by lesion.

    parts = split_by_lesion(read_isic2018(folder), seed=0)
    pixels = load_pixels(parts.test)                    # uint8 (N, 224, 224, 3)

Photographs of one lesion never stand in two parts.
"""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from derma_semantics.conditions import CODES
from derma_semantics.contract import IMAGE_SIZE
from derma_semantics.errors import InvalidImage
from derma_semantics.preprocess import preprocess

TRUTH = "ISIC2018_Task3_Training_GroundTruth.csv"
IMAGES = "ISIC2018_Task3_Training_Input"
# The first is HAM10000's own table, the second what the challenge publishes.
LESIONS = {
    "HAM10000_metadata.csv": "image_id",
    "ISIC2018_Task3_Training_LesionGroupings.csv": "image",
}


@dataclass(frozen=True)
class Example:
    """One labelled photograph; ``condition`` is an index into ``CONDITIONS``."""

    path: Path
    lesion: str
    condition: int


@dataclass(frozen=True)
class Parts:
    """Disjoint by lesion."""

    train: list[Example]
    calibration: list[Example]
    test: list[Example]


def read_isic2018(folder: str | Path) -> list[Example]:
    """Read the official folder layout, in the order of the ground truth.

    Raises:
        ValueError: a file is missing, a row has not exactly one condition, or an image
            has no lesion.
    """
    folder = Path(folder)
    lesions = _read_lesions(folder)
    truth = _read_csv(folder / TRUTH)
    examples = [_example(row, folder / IMAGES, lesions) for row in truth]
    absent = [e.path.name for e in examples if not e.path.is_file()]
    if absent:
        raise ValueError(f"{folder / IMAGES} lacks {len(absent)} of {len(examples)} images, e.g. {absent[0]}")
    return examples


def split_by_lesion(examples: Sequence[Example], *, seed: int) -> Parts:
    """Stratified split: a tenth of each condition's lesions for test, a tenth for calibration."""
    lesions: dict[int, set[str]] = defaultdict(set)
    for example in examples:
        lesions[example.condition].add(example.lesion)
    part_of: dict[str, int] = {}
    rng = random.Random(seed)
    for condition in sorted(lesions):
        names = sorted(lesions[condition])
        rng.shuffle(names)
        tenth = max(1, round(len(names) / 10))
        for position, name in enumerate(names):
            if part_of.setdefault(name, min(position // tenth, 2)) != min(position // tenth, 2):
                raise ValueError(f"lesion {name} has two conditions; it cannot be split")
    parts: tuple[list[Example], ...] = ([], [], [])
    for example in examples:
        parts[part_of[example.lesion]].append(example)
    return Parts(test=parts[0], calibration=parts[1], train=parts[2])


def pick(examples: Sequence[Example], names: Sequence[str]) -> list[Example]:
    """The examples with these image names.

    Raises:
        ValueError: some are not there.
    """
    by_name = {example.path.stem: example for example in examples}
    if absent := [name for name in names if name not in by_name]:
        raise ValueError(f"the data lacks {len(absent)} of {len(names)} images, e.g. {absent[0]}")
    return [by_name[name] for name in names]


def load_pixels(examples: Sequence[Example], *, label: str = "images") -> Tensor:
    """Decode all images into memory (150 KB each).

    Returns:
        uint8, shape (N, 224, 224, 3).

    Raises:
        ValueError: an image cannot be decoded; names the file.
    """
    pixels = np.empty((len(examples), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    for row, example in enumerate(tqdm(examples, desc=f"decoding {label}", unit="img", leave=False)):
        try:
            pixels[row] = preprocess(example.path.read_bytes())
        except InvalidImage as exc:
            raise ValueError(f"{example.path}: {exc}") from exc
    return torch.from_numpy(pixels)


def labels(examples: Sequence[Example]) -> Tensor:
    """Condition indices, int64, shape (N,)."""
    return torch.tensor([example.condition for example in examples])


def _example(row: dict[str, str], images: Path, lesions: dict[str, str]) -> Example:
    name = row["image"]
    hot = [i for i, code in enumerate(CODES) if float(row[code]) == 1]
    if len(hot) != 1:
        raise ValueError(f"{TRUTH}: image {name} has {len(hot)} conditions, expected exactly one")
    if name not in lesions:
        raise ValueError(f"image {name} has no lesion id; a split by lesion needs one")
    return Example(images / f"{name}.jpg", lesions[name], hot[0])


def _read_lesions(folder: Path) -> dict[str, str]:
    for name, image_column in LESIONS.items():
        if (folder / name).is_file():
            return {row[image_column]: row["lesion_id"] for row in _read_csv(folder / name)}
    raise ValueError(f"{folder} has no lesion table: expected {' or '.join(LESIONS)}")


def _read_csv(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
