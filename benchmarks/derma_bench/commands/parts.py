"""``derma-bench engine`` and ``derma-bench decode``: parts of the service by themselves."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from derma_bench.commands.options import COUNT, FOLDER, SECONDS, finish, images, measurement, number, session
from derma_bench.engine.kinds import KINDS, REFERENCE, startable

SIZES = ((600, 450), (1024, 768), (4000, 3000))


@click.command(short_help="One network in many engines, beside the processor's limit.")
@click.argument("folder", metavar="BUNDLE", type=FOLDER)
@click.option(
    "--contender",
    "names",
    type=click.Choice(list(KINDS)),
    multiple=True,
    help="May be repeated; the others are compared with the first.  [default: all that can start]",
)
@click.option("--batch", "batches", type=COUNT, multiple=True, help="May be repeated.  [default: 1, 8]")
@click.option(
    "--threads", type=click.IntRange(min=0), default=0, help="Of one operator.  [default: all cores]"
)
@number("--rounds", COUNT, 5)
@number("--seconds", SECONDS, 2.0, "Of a burst.")
@images("Photographs to calibrate and to compare on; default: drawn.")
@measurement
def engine(
    folder: Path,
    names: tuple[str, ...],
    batches: tuple[int, ...],
    threads: int,
    rounds: int,
    seconds: float,
    images: Path | None,
    **options: Any,
) -> None:
    """Compare one network in many engines, beside the rate of the processor.

    Each round gives every engine one short burst at every batch size, and every precision some
    matrix products. Ratios and fractions are those of bursts of one round, and what is reported
    is their median with the smallest and the largest. Quantised graphs are made on the spot,
    calibrated on one half of the images and compared with PyTorch on the other.

    The ratio is to the first contender. The fraction is of the measured rate of dense products at
    the engine's precision, by the operations that the engine computes.
    """
    from derma_bench.engine.measure import Plan, measure
    from derma_export.samples import folder_samples, synthetic_samples
    from derma_training.bundle import Bundle

    logging.getLogger().setLevel(logging.ERROR)
    plan, drawn = Plan(batches or Plan.batches, rounds, seconds), 64
    names = tuple(dict.fromkeys(names))
    if options["smoke"]:  # engines that start within seconds
        plan, drawn = Plan((1, 2), rounds=1, seconds=0.02), 4
        names = names or (REFERENCE, "ort-fp32", "ort-int8-dynamic")
    with session() as state:
        bundle = Bundle.open(folder)
        samples = folder_samples(images) if images else synthetic_samples(drawn)
        figures, rows = measure(bundle, names or startable(), samples, plan, state, threads)
        subject = {
            "bundle_name": bundle.name,
            "bundle_digest": bundle.digest,
            "precision": "each engine its own",
            "threads": threads or "all",
            "payloads": f"{len(samples.names)} images ({samples.source})",
        }
        finish("engine", options, figures, rows, subject)


def parsed_sizes(_: Any, __: Any, texts: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    sizes = []
    for text in texts:
        width, _x, height = text.lower().partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            raise click.BadParameter(f"{text!r} is no size such as 600x450")
        sizes.append((int(width), int(height)))
    return tuple(sizes) or SIZES


@click.command(short_help="Milliseconds from JPEG to pixels, and what faster ways change.")
@click.option("--bundle", type=FOLDER, help="Compare probabilities too.")
@images("Photographs, brought to each size; default: drawn.")
@click.option(
    "--size",
    "sizes",
    metavar="WxH",
    multiple=True,
    callback=parsed_sizes,
    help="May be repeated.  [default: three sizes]",
)
@number("--count", COUNT, 6, "Images a size.")
@number("--rounds", COUNT, 5)
@measurement
def decode(
    bundle: Path | None,
    images: Path | None,
    sizes: tuple[tuple[int, int], ...],
    count: int,
    rounds: int,
    **options: Any,
) -> None:
    """Milliseconds from JPEG to the model's pixels, and what faster ways change.

    One thread, by turns. nvImageCodec runs on the first GPU (with a thread a core) or else on the
    processor. A decoder passes if no pixel and - with a bundle - no probability differs from the
    reference by more than the tolerance: 2 of 255, and 0.002.

    \b
        derma-bench decode --bundle training/bundles/derma-mini
        derma-bench decode --images photographs --size 4000x3000 --rounds 10
    """
    from derma_bench.decode.decoders import available
    from derma_bench.decode.measure import judge, measure
    from derma_bench.payloads import QUALITY
    from derma_training.bundle import Bundle

    if options["smoke"]:
        sizes, count, rounds = SIZES[:1], 1, 1
    with session():
        opened = Bundle.open(bundle) if bundle else None
        probabilities = judge(opened) if opened else None
        decoders, skipped = available()
        figures, rows = measure(decoders, sizes, count, rounds, folder=images, probabilities=probabilities)
        subject = {
            "bundle_name": opened.name if opened else "no bundle",
            "bundle_digest": opened.digest if opened else "",
            "precision": "one thread",
            "payloads": f"{count} {'photographs' if images else 'drawn pictures'} a size, quality {QUALITY}",
        }
        finish("decode", options, figures | skipped, rows, subject)
