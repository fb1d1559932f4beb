"""Decoders timed by turns and compared with the first of them.

    figures, rows = measure(DECODERS, [(600, 450)], count=6, rounds=5, probabilities=judge(bundle))
    figures["decoders"][1]["ratio"], figures["decoders"][1]["passes"]

The first decoder is the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from derma_bench.decode.decoders import AtOnce, Decoder, Pixels
from derma_bench.decode.pictures import Size, pictures
from derma_bench.ratios import ratio, spread
from derma_semantics.imaging.preprocess import PIXEL_TOLERANCE
from derma_training.bundle import Bundle

# What a decoder may change, beside pixels. The command's --help states both; a test compares.
PROBABILITY_TOLERANCE = 0.002

Row = dict[str, Any]
Probabilities = Callable[[Pixels], NDArray[np.float32]]


def turns(
    decoders: Mapping[str, Decoder],
    images: Sequence[bytes],
    rounds: int,
    progress: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Milliseconds an image of each decoder in each round, after one round that does not count.

    Those that decode many images in one call are given all of them; the others take turns by image.
    """
    rows: list[Row] = []
    for number in range(-1, rounds):
        spent = dict.fromkeys(decoders, 0.0)
        for image in images:
            for name, decoder in decoders.items():
                if not isinstance(decoder, AtOnce):
                    spent[name] += _seconds(decoder, [image])
        for name, decoder in decoders.items():
            if isinstance(decoder, AtOnce):
                spent[name] += _seconds(decoder, images)
        rows += [
            {"round": number, "decoder": name, "ms": 1e3 * seconds / len(images)}
            for name, seconds in spent.items()
            if number >= 0
        ]
        progress()
    return rows


def differences(
    decoder: Decoder,
    images: Sequence[bytes],
    truth: Sequence[Pixels],
    probabilities: Probabilities | None = None,
) -> Row:
    """The largest differences to the reference's pixels, and whether they are within the tolerance."""
    pairs = list(zip(truth, _pixels(decoder, images), strict=True))
    pixel = max(int(np.abs(a.astype(np.int16) - b).max()) for a, b in pairs)
    row: Row = {"pixel_difference": pixel}
    if probabilities is None:
        return row | {"passes": pixel <= PIXEL_TOLERANCE}
    probability = max(float(np.abs(probabilities(a) - probabilities(b)).max()) for a, b in pairs)
    passes = pixel <= PIXEL_TOLERANCE and probability <= PROBABILITY_TOLERANCE
    return row | {"probability_difference": probability, "passes": passes}


def measure(
    decoders: Mapping[str, Decoder],
    sizes: Sequence[Size],
    count: int,
    rounds: int,
    *,
    folder: Path | None = None,
    probabilities: Probabilities | None = None,
) -> tuple[dict[str, Any], list[Row]]:
    """Time decoders by turns, compare what they give; figures and raw turns. The first is the reference."""
    rows: list[Row] = []
    table: list[Row] = []
    first, reference = next(iter(decoders.items()))
    with one_thread(), tqdm(total=len(sizes) * (rounds + 1), desc="decoding") as bar:
        for size in sizes:
            images = list(pictures(size, count, folder))
            name = f"{size[0]} x {size[1]}"
            timed = [{"size": name, **row} for row in turns(decoders, images, rounds, bar.update)]
            truth = [reference(image) for image in images]
            for key, decoder in decoders.items():
                found = differences(decoder, images, truth, probabilities)
                table.append({"size": name, "decoder": key, **_speed(timed, key, first), **found})
            rows += timed
    tolerance = {"pixel_tolerance": PIXEL_TOLERANCE, "probability_tolerance": PROBABILITY_TOLERANCE}
    return {**tolerance, "decoders": table}, rows


@contextmanager
def one_thread() -> Iterator[None]:
    """Each library decodes and resizes with one thread, as an instance of a server does."""
    import cv2

    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def _pixels(decoder: Decoder, images: Sequence[bytes]) -> list[Pixels]:
    return decoder.many(images) if isinstance(decoder, AtOnce) else [decoder(image) for image in images]


def _seconds(decoder: Decoder, images: Sequence[bytes]) -> float:
    begin = perf_counter()
    _pixels(decoder, images)
    return perf_counter() - begin


def _speed(rows: Sequence[Row], name: str, first: str) -> Row:
    """Milliseconds, and how many times as fast as the first."""
    ms = [row["ms"] for row in rows if row["decoder"] == name]
    reference = [row["ms"] for row in rows if row["decoder"] == first]
    times, faster = spread(ms), ratio(reference, ms)
    return {"ms": times["median"], "ms_min": times["min"], "ms_max": times["max"], "ratio": faster["median"]}


def judge(bundle: Bundle) -> Probabilities:
    """PyTorch in fp32."""
    from derma_training.network.classifier import Classifier

    classifier = Classifier.from_bundle(bundle)

    @torch.inference_mode()
    def probabilities(pixels: Pixels) -> NDArray[np.float32]:
        values: NDArray[np.float32] = classifier(torch.from_numpy(pixels.copy())[None]).probabilities.numpy()
        return values

    return probabilities
