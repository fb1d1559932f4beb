"""derma-bench decode: milliseconds from JPEG to the model's pixels, and what faster ways change.

    derma-bench decode --bundle training/bundles/derma-mini
    derma-bench decode --images photographs --size 4000x3000 --rounds 10

One thread. By turns: each round gives every decoder every image once. A decoder passes if no
pixel and - with a bundle - no probability differs from the reference by more than the
tolerance: 2 of 255, and 0.002.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

from derma_bench import record
from derma_bench.comparison import ratio, spread
from derma_bench.decoders import DECODERS, Decoder, Pixels
from derma_bench.table import markdown
from derma_semantics.contract import IMAGE_SUFFIXES
from derma_semantics.synthetic import draw
from derma_semantics.terminal import help_text
from derma_training.bundle import Bundle

# What a decoder may change. The docstring and so --help state them too; a test compares.
PIXEL_TOLERANCE = 2
PROBABILITY_TOLERANCE = 0.002

SIZES = ((600, 450), (1024, 768), (4000, 3000))
LARGEST_DRAWN = 1024
NOISE = 3
QUALITY = 92
# Drawn pictures or photographs a size.
IMAGES = 6

Size = tuple[int, int]
Row = dict[str, Any]
Probabilities = Callable[[Pixels], NDArray[np.float32]]


def encode(source: Image.Image, size: Size, seed: int = 0) -> bytes:
    """A JPEG of exactly this size: cropped to its shape, enlarged or reduced."""
    image = ImageOps.fit(source.convert("RGB"), size, Image.Resampling.LANCZOS)
    if size[0] > source.size[0]:
        image = _with_noise(image, seed)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def pictures(size: Size, count: int, folder: Path | None = None) -> Iterator[bytes]:
    """Drawn pictures, or photographs of a folder, as JPEG of one size.

    Raises:
        ValueError: the folder holds no image.
    """
    if folder is None:
        scale = min(1.0, LARGEST_DRAWN / max(size))
        drawn = (round(size[0] * scale), round(size[1] * scale))
        yield from (encode(draw(seed, drawn).image, size, seed) for seed in range(count))
        return
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"{folder.name} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    for seed, path in enumerate(paths[:: -(-len(paths) // count)]):
        with Image.open(path) as image:
            yield encode(ImageOps.exif_transpose(image), size, seed)


def turns(
    decoders: Mapping[str, Decoder],
    images: Sequence[bytes],
    rounds: int,
    progress: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Milliseconds an image of each decoder in each round, after one round that does not count."""
    rows: list[Row] = []
    for number in range(-1, rounds):
        spent = dict.fromkeys(decoders, 0.0)
        for image in images:
            for name, decoder in decoders.items():
                begin = perf_counter()
                decoder(image)
                spent[name] += perf_counter() - begin
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
    pairs = [(right, decoder(image)) for right, image in zip(truth, images)]
    pixel = max(int(np.abs(a.astype(np.int16) - b).max()) for a, b in pairs)
    row: Row = {"pixel_difference": pixel}
    if probabilities is None:
        return row | {"passes": pixel <= PIXEL_TOLERANCE}
    probability = max(float(np.abs(probabilities(a) - probabilities(b)).max()) for a, b in pairs)
    passes = pixel <= PIXEL_TOLERANCE and probability <= PROBABILITY_TOLERANCE
    return row | {"probability_difference": probability, "passes": passes}


@click.command(help=help_text(__doc__))
@click.option(
    "--bundle",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Compare probabilities too.",
)
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Photographs, brought to each size; default: drawn.",
)
@click.option(
    "--size", "sizes", metavar="WxH", multiple=True, help="May be repeated.  [default: three sizes]"
)
@click.option("--count", type=click.IntRange(min=1), default=IMAGES, show_default=True, help="Images a size.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(".run/bench/decode.json"),
    show_default=True,
    help="Result to write.",
)
@click.option("--smoke", is_flag=True, help="One small image, to see that it works.")
def decode(
    bundle: Path | None,
    images: Path | None,
    sizes: tuple[str, ...],
    count: int,
    rounds: int,
    out: Path,
    smoke: bool,
) -> None:
    wanted = tuple(map(_size, sizes)) or SIZES
    if smoke:
        wanted, count, rounds = SIZES[:1], 1, 1
    try:
        opened = Bundle.open(bundle) if bundle else None
        judge = _judge(opened) if opened else None
        figures, rows = measure(DECODERS, wanted, count, rounds, folder=images, probabilities=judge)
    except (OSError, ValueError, ImportError) as exc:
        raise click.ClickException(str(exc)) from exc
    subject = {
        "bundle_name": opened.name if opened else "no bundle",
        "bundle_digest": opened.digest if opened else "",
        "precision": "one thread",
        "payloads": f"{count} {'photographs' if images else 'drawn pictures'} a size, quality {QUALITY}",
    }
    made = record.make("decode", figures, rows, smoke=smoke, subject=subject)
    record.write(out, made)
    click.echo(f"{markdown(made)}\nresult in {out}")


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


def _with_noise(image: Image.Image, seed: int) -> Image.Image:
    """A sensor's: without it an enlarged picture decodes too fast, and hides what scaling loses."""
    noise = np.random.default_rng(seed).integers(-NOISE, NOISE + 1, (image.height, image.width, 3), np.int16)
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def _size(text: str) -> Size:
    try:
        width, height = map(int, text.lower().split("x"))
    except ValueError as exc:
        raise click.BadParameter(f"{text!r} is no size such as 600x450", param_hint="--size") from exc
    return width, height


def _speed(rows: Sequence[Row], name: str, first: str) -> Row:
    """Milliseconds, and how many times as fast as the first."""
    ms = [row["ms"] for row in rows if row["decoder"] == name]
    reference = [row["ms"] for row in rows if row["decoder"] == first]
    times, faster = spread(ms), ratio(reference, ms)
    return {"ms": times["median"], "ms_min": times["min"], "ms_max": times["max"], "ratio": faster["median"]}


def _judge(bundle: Bundle) -> Probabilities:
    """PyTorch in fp32."""
    from derma_training.classifier import Classifier

    classifier = Classifier.from_bundle(bundle)

    @torch.inference_mode()
    def probabilities(pixels: Pixels) -> NDArray[np.float32]:
        values: NDArray[np.float32] = classifier(torch.from_numpy(pixels.copy())[None]).probabilities.numpy()
        return values

    return probabilities
