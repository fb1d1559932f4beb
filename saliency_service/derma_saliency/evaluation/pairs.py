"""Photographs with lesion masks, as the network sees them.

    pairs = find_pairs(Path("images"), Path("masks"))
    pixels, mask = pairs[0].load()          # uint8 (224, 224, 3), bool (224, 224)

A mask is ``<image>_segmentation.png`` (ISIC 2017) or ``<image>_mask.png``, of the image's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from derma_semantics.domain.regular import read_regular
from derma_semantics.evaluation.tables import read_isic2017
from derma_semantics.imaging.folders import images_in
from derma_semantics.imaging.preprocess import decode, resize_and_crop

MASK_SUFFIXES = ("_segmentation.png", "_mask.png")
PARTS = ("all", "even", "odd")


@dataclass(frozen=True)
class Pair:
    """An image, its mask and, where it is known, its condition's code."""

    image: Path
    mask: Path
    condition: str | None = None

    @property
    def name(self) -> str:
        return self.image.stem

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Pixels and lesion, both resized and cropped as for the network.

        Raises:
            InvalidImage: the image or the mask cannot be read.
            ValueError: they differ in size.
        """
        photograph, mask = decode(read_regular(self.image)), decode(read_regular(self.mask))
        if photograph.size != mask.size:
            raise ValueError(f"{self.mask} is {mask.size}, its image {photograph.size}")
        return resize_and_crop(photograph).copy(), resize_and_crop(mask)[..., 0] > 127


def find_pairs(images: Path, masks: Path, truth: Path | None = None, part: str = "all") -> list[Pair]:
    """The images that have a mask, by name; of ``part`` even or odd, every second one.

    Raises:
        ValueError: there are none, or the truth names none of them.
    """
    conditions = dict(read_isic2017(truth)) if truth else {}
    found = []
    for path in images_in(images):
        mask = next((m for s in MASK_SUFFIXES if (m := masks / f"{path.stem}{s}").is_file()), None)
        if mask and (not truth or path.stem in conditions):
            found.append(Pair(path, mask, conditions.get(path.stem)))
    if not found:
        raise ValueError(f"no image of {images} has a mask in {masks} ({' or '.join(MASK_SUFFIXES)})")
    return found[PARTS.index(part) - 1 :: 2] if part != "all" else found
