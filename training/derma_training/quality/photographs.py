"""A folder of photographs without labels, of which one half chooses and the other measures.

known, held_out = halves(Path("clinic"))
pixels = decoded(known)                         # uint8 (N, 224, 224, 3)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from derma_semantics.domain.regular import read_regular
from derma_semantics.imaging.folders import images_in
from derma_training.data import Example, load_pixels


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
    return load_pixels([Example(p.name, p.name, 0, str(p.parent), partial(read_regular, p)) for p in paths])
