"""Decoders timed by turns and compared with the first of them, which is the reference.

figures, rows = measure(DECODERS, [(600, 450)], count=6, rounds=5, probabilities=judge(bundle))
figures["decoders"][1]["ratio"], figures["decoders"][1]["passes"]
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from derma_bench.decode.decoders import Decoder, Pixels
from derma_bench.payloads import encoded
from derma_bench.turns import Row, by_turns, column, flat, ratio, spread
from derma_semantics.domain.regular import read_regular
from derma_semantics.imaging.folders import images_in
from derma_semantics.imaging.preprocess import PIXEL_TOLERANCE
from derma_semantics.imaging.synthetic import draw
from derma_training.bundle import Bundle
from derma_training.network.classifier import Classifier

# What a decoder may change, beside pixels. The command's --help states both; a test compares.
PROBABILITY_TOLERANCE = 0.002
LARGEST_DRAWN = 1024
NOISE = 3

Size = tuple[int, int]
Probabilities = Callable[[Pixels], NDArray[np.float32]]


def measure(
    decoders: Mapping[str, Decoder],
    sizes: Sequence[Size],
    count: int,
    rounds: int,
    *,
    folder: Path | None = None,
    probabilities: Probabilities | None = None,
) -> tuple[Row, list[Row]]:
    """Time decoders by turns, compare their pixels; figures and raw turns."""
    images = {f"{size[0]} x {size[1]}": list(pictures(size, count, folder)) for size in sizes}
    turns = [
        ({"size": size, "decoder": name}, partial(_timed, decoder, found))
        for size, found in images.items()
        for name, decoder in decoders.items()
    ]
    with one_thread():
        for _, measured in turns:  # a round that does not count
            measured()
        rows = by_turns(turns, rounds)
        table = []
        for size, found in images.items():
            reference, *_ = decoders
            truth = decoders[reference](found)
            first = column(rows, "ms", size=size, decoder=reference)
            for name, decoder in decoders.items():
                ms = column(rows, "ms", size=size, decoder=name)
                speed = flat("ms", spread(ms)) | {"ratio": ratio(first, ms)["median"]}
                away = differences(decoder, found, truth, probabilities)
                table.append({"size": size, "decoder": name, **speed, **away})
    tolerance = {"pixel_tolerance": PIXEL_TOLERANCE, "probability_tolerance": PROBABILITY_TOLERANCE}
    return {**tolerance, "decoders": table}, rows


def differences(
    decoder: Decoder,
    images: Sequence[bytes],
    truth: Sequence[Pixels],
    probabilities: Probabilities | None = None,
) -> Row:
    """The largest differences to the reference's pixels; ``passes`` if they are within the tolerance."""
    pairs = list(zip(truth, decoder(images), strict=True))
    pixel = max(int(np.abs(a.astype(np.int16) - b).max()) for a, b in pairs)
    row: Row = {"pixel_difference": pixel}
    if probabilities is None:
        return row | {"passes": pixel <= PIXEL_TOLERANCE}
    probability = max(float(np.abs(probabilities(a) - probabilities(b)).max()) for a, b in pairs)
    passes = pixel <= PIXEL_TOLERANCE and probability <= PROBABILITY_TOLERANCE
    return row | {"probability_difference": probability, "passes": passes}


def pictures(size: Size, count: int, folder: Path | None = None) -> Iterator[bytes]:
    """Drawn pictures, or photographs of a folder, as JPEG of one size.

    Raises:
        ValueError: the folder holds no image.
    """
    if folder is None:
        scale = min(1.0, LARGEST_DRAWN / max(size))
        drawn = (round(size[0] * scale), round(size[1] * scale))
        yield from (resized(draw(seed, drawn).image, size, seed) for seed in range(count))
        return
    paths = images_in(folder, least=1)
    for seed, path in enumerate(paths[:: -(-len(paths) // count)]):
        with Image.open(io.BytesIO(read_regular(path))) as image:
            yield resized(ImageOps.exif_transpose(image), size, seed)


def resized(source: Image.Image, size: Size, seed: int = 0) -> bytes:
    """A JPEG of exactly this size: cropped to its shape, reduced, or enlarged with a sensor's noise.

    Without noise an enlarged picture decodes too fast, and hides what scaling loses.
    """
    image = ImageOps.fit(source.convert("RGB"), size, Image.Resampling.LANCZOS)
    if size[0] > source.size[0]:
        noise = np.random.default_rng(seed).integers(-NOISE, NOISE + 1, (size[1], size[0], 3), np.int16)
        image = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    return encoded(image)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch resizes with one thread, as an instance of a server does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def judge(bundle: Bundle) -> Probabilities:
    """PyTorch in fp32."""
    classifier = Classifier.from_bundle(bundle)

    @torch.inference_mode()
    def probabilities(pixels: Pixels) -> NDArray[np.float32]:
        values: NDArray[np.float32] = classifier(torch.from_numpy(pixels.copy())[None]).probabilities.numpy()
        return values

    return probabilities


def _timed(decoder: Decoder, images: Sequence[bytes]) -> Row:
    begin = perf_counter()
    decoder(images)
    return {"ms": 1e3 * (perf_counter() - begin) / len(images)}
