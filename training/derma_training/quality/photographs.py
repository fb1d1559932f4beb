"""A folder of photographs without labels, of which one half chooses and the other measures.

known, held_out = halves(Path("clinic"))     # uint8 (N, 224, 224, 3) each
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from derma_semantics.contract import IMAGE_SUFFIXES
from derma_semantics.errors import InvalidImage
from derma_semantics.preprocess import preprocess


def halves(folder: Path) -> tuple[Tensor, Tensor]:
    """The first, third, fifth, ... image by name, and the second, fourth, ..., decoded.

    Raises:
        ValueError: the folder holds no two images, or one cannot be decoded; names it.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if len(paths) < 2:
        raise ValueError(f"{folder} holds no two images ({', '.join(IMAGE_SUFFIXES)})")
    decoded = [_decoded(path) for path in tqdm(paths, desc="decoding", leave=False)]
    pixels = torch.from_numpy(np.stack(decoded))
    return pixels[::2], pixels[1::2]


def _decoded(path: Path) -> NDArray[np.uint8]:
    try:
        return preprocess(path.read_bytes())
    except InvalidImage as exc:
        raise ValueError(f"{path}: {exc}") from exc
