"""Which images show the same picture, by perceptual hash (``imagehash.phash``, 256 bits).

    compared = compare(hashes(examples))
    compared.same                                       # [[0, 41], ...], positions
    compared.nearest                                    # Gap(one=7, other=19, bits=40): not the same

A picture that was re-encoded or resized keeps its hash but for a few bits. ``THRESHOLD`` lies between
that and what sets the pictures of different lesions apart; ``derma-train data`` prints the second, and
the tests measure both on ISIC 2018.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from derma_training.data.table import Example, decode_example

HASH_SIDE = 16
BITS = HASH_SIDE**2
THRESHOLD = 28
BLOCK = 512

Signs = NDArray[np.float32]


@dataclass(frozen=True)
class Gap:
    """How many bits lie between two pictures."""

    one: int
    other: int
    bits: int


@dataclass(frozen=True)
class Comparison:
    """Groups of two and more positions with the same picture; the nearest two that are not the same."""

    same: list[list[int]]
    nearest: Gap | None


def hashes(examples: Sequence[Example]) -> Signs:
    """Hashes of the pixels that a model sees, as signs: float32 (N, 256).

    Raises:
        ValueError: an image cannot be read or decoded.
    """
    # Pillow decodes and resizes without the interpreter's lock.
    with ThreadPoolExecutor() as pool:
        drawn = pool.map(lambda example: _hash(decode_example(example)), examples)
        bits = list(tqdm(drawn, total=len(examples), desc="hashing images", unit="img", leave=False))
    return np.array(bits, dtype=np.float32).reshape(-1, BITS) * 2 - 1


def compare(signs: Signs) -> Comparison:
    """All with all, in blocks: 25,000 images take seconds."""
    near: list[tuple[int, int]] = []
    nearest: Gap | None = None
    for start, bits in _distances(signs):
        near += [(start + int(i), start + int(j)) for i, j in zip(*np.nonzero(bits <= THRESHOLD))]
        bits[bits <= THRESHOLD] = BITS + 1
        i, j = np.unravel_index(bits.argmin(), bits.shape)
        if bits[i, j] < (nearest.bits if nearest else BITS + 1):
            nearest = Gap(start + int(i), start + int(j), int(bits[i, j]))
    return Comparison(_groups(near, len(signs)), nearest)


def _hash(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    bits: NDArray[np.bool_] = imagehash.phash(Image.fromarray(pixels), hash_size=HASH_SIDE).hash
    return bits.ravel()


def _distances(signs: Signs) -> Iterator[tuple[int, Signs]]:
    """Blocks of rows against all later ones; a product of signs is equal minus differing bits."""
    for start in range(0, len(signs), BLOCK):
        bits = ((BITS - signs[start : start + BLOCK] @ signs[start:].T) / 2).astype(np.float32, copy=False)
        bits[np.tril_indices_from(bits)] = BITS + 1
        yield start, bits


def _groups(pairs: Sequence[tuple[int, int]], count: int) -> list[list[int]]:
    """Positions that pairs tie together, also through others."""
    if not pairs:
        return []
    one, other = np.array(pairs).T
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(count, count))
    groups: dict[int, list[int]] = defaultdict(list)
    for position, group in enumerate(connected_components(graph, directed=False)[1]):
        groups[int(group)].append(position)
    return [group for group in groups.values() if len(group) > 1]
