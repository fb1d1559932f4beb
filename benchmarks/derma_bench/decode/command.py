"""derma-bench decode: milliseconds from JPEG to the model's pixels, and what faster ways change.

    derma-bench decode --bundle training/bundles/derma-mini
    derma-bench decode --images photographs --size 4000x3000 --rounds 10

One thread. By turns: each round gives every decoder every image once. nvImageCodec takes all of
a size in one call, on the first GPU (with a thread a core) or else on the processor. A decoder
passes if no pixel and - with a bundle - no probability differs from the reference by more than the
tolerance: 2 of 255, and 0.002.
"""

from __future__ import annotations

from pathlib import Path

import click

from derma_bench import options
from derma_bench.decode.decoders import DECODERS, Decoder, by_nvimgcodec
from derma_bench.decode.measure import judge, measure
from derma_bench.decode.pictures import QUALITY, Size
from derma_bench.failures import reported
from derma_bench.hardware import gpus
from derma_bench.outcome import finish
from derma_semantics.commands.terminal import help_text
from derma_training.bundle import Bundle

SIZES = ((600, 450), (1024, 768), (4000, 3000))
# Drawn pictures or photographs a size.
IMAGES = 6


@click.command(
    help=help_text(__doc__), short_help="Milliseconds from JPEG to pixels, and what faster ways change."
)
@click.option("--bundle", type=options.FOLDER, help="Compare probabilities too.")
@options.images("Photographs, brought to each size; default: drawn.")
@click.option(
    "--size", "sizes", metavar="WxH", multiple=True, help="May be repeated.  [default: three sizes]"
)
@click.option("--count", type=click.IntRange(min=1), default=IMAGES, show_default=True, help="Images a size.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@options.out("decode")
@options.smoke("One small image, to see that it works.")
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
    with reported():
        opened = Bundle.open(bundle) if bundle else None
        probabilities = judge(opened) if opened else None
        decoders, skipped = with_nvimgcodec()
        figures, rows = measure(decoders, wanted, count, rounds, folder=images, probabilities=probabilities)
        subject = {
            "bundle_name": opened.name if opened else "no bundle",
            "bundle_digest": opened.digest if opened else "",
            "precision": "one thread",
            "payloads": f"{count} {'photographs' if images else 'drawn pictures'} a size, quality {QUALITY}",
        }
        finish("decode", out, (figures | skipped, rows, subject), smoke=smoke)


def with_nvimgcodec() -> tuple[dict[str, Decoder], dict[str, str]]:
    """All decoders that can run here, and why nvImageCodec is not among them if it is not."""
    on_gpu = bool(gpus())
    name = f"nvImageCodec ({'GPU' if on_gpu else 'processor'}) + Pillow"
    try:
        return {**DECODERS, name: by_nvimgcodec(0 if on_gpu else None)}, {}
    except (ImportError, RuntimeError) as exc:
        return DECODERS, {f"skipped: {name}": str(exc)}


def _size(text: str) -> Size:
    try:
        width, height = map(int, text.lower().split("x"))
    except ValueError as exc:
        raise click.BadParameter(f"{text!r} is no size such as 600x450", param_hint="--size") from exc
    return width, height
