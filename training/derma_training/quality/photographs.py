"""A folder of photographs without labels, of which one half chooses and the other measures.

known, held_out = halves(Path("clinic"))
pixels = decoded(known)                         # uint8 (N, 224, 224, 3)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from derma_semantics.domain.errors import InvalidImage
from derma_semantics.imaging.folders import images_in
from derma_semantics.imaging.preprocess import preprocess


def halves(folder: Path) -> tuple[list[Path], list[Path]]:
    """The first, third, fifth, ... image by name, and the second, fourth, ...

    Raises:
        ValueError: the folder holds no two images.
    """
    paths = images_in(folder, least=2)
    return paths[::2], paths[1::2]


def decoded(paths: Sequence[Path]) -> Tensor:
    """Their pixels, uint8 (N, 224, 224, 3).

    Raises:
        ValueError: one cannot be decoded; names it.
    """
    return torch.from_numpy(np.stack([_decoded(path) for path in tqdm(paths, desc="decoding", leave=False)]))


def _decoded(path: Path) -> NDArray[np.uint8]:
    try:
        return preprocess(path.read_bytes())
    except InvalidImage as exc:
        raise ValueError(f"{path}: {exc}") from exc
