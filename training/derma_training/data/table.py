"""The one table that every data set becomes: a labelled photograph a row.

    examples = read("ISIC2018")
    pixels = load_pixels(examples[:100])                # uint8 (100, 224, 224, 3)
    truth = labels(examples[:100])

An image's bytes are read when they are asked for. How a diagnosis was confirmed
(HAM10000's ``dx_type``) is not in the table: it all but tells benign from malignant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from derma_semantics.domain.contract import IMAGE_SIZE
from derma_semantics.domain.errors import InvalidImage
from derma_semantics.imaging.preprocess import preprocess


@dataclass(frozen=True)
class Example:
    """One labelled photograph.

    Attributes:
        name: image id, e.g. ISIC_0024306.
        lesion: photographs of one lesion share it; they never stand in two parts.
        condition: index into ``CONDITIONS``.
        source: the data set it came from.
        read: gives the encoded image.
        split: the part in which the data set itself puts it, where it does.
    """

    name: str
    lesion: str
    condition: int
    source: str
    read: Callable[[], bytes] = field(compare=False, repr=False)
    age: float | None = None
    sex: str | None = None
    site: str | None = None
    split: str | None = None


def labels(examples: Iterable[Example]) -> Tensor:
    """Condition indices, int64, shape (N,)."""
    return torch.tensor([example.condition for example in examples], dtype=torch.int64)


def load_pixels(examples: Sequence[Example], *, label: str = "images") -> Tensor:
    """Decode all images into memory (150 KB each).

    Returns:
        uint8, shape (N, 224, 224, 3).

    Raises:
        ValueError: an image cannot be read or decoded; names it.
    """
    pixels = np.empty((len(examples), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    for row, example in enumerate(tqdm(examples, desc=f"decoding {label}", unit="img", leave=False)):
        pixels[row] = decode_example(example)
    return torch.from_numpy(pixels)


def decode_example(example: Example) -> NDArray[np.uint8]:
    """The pixels that a model sees, uint8 (224, 224, 3).

    Raises:
        ValueError: the image cannot be read or decoded; names it.
    """
    try:
        return preprocess(example.read())
    except (InvalidImage, OSError) as exc:
        raise ValueError(f"image {example.name} of {example.source}: {exc}") from exc


def pick(examples: Iterable[Example], names: Sequence[str]) -> list[Example]:
    """The examples with these image names, in the order of ``names``.

    Raises:
        ValueError: some are not there.
    """
    by_name = {example.name: example for example in examples}
    if absent := [name for name in names if name not in by_name]:
        raise ValueError(f"the data lacks {len(absent)} of {len(names)} images, e.g. {absent[0]}")
    return [by_name[name] for name in names]
