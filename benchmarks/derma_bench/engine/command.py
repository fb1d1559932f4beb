"""derma-bench engine: one network in many engines, by turns, beside what the machine could do.

    derma-bench engine training/bundles/derma-mini --threads 2 --images photographs
    derma-bench engine training/bundles/derma-mini --contender ort-fp32 --contender openvino-int8

Each round gives every engine one short burst at every batch size, and every precision some
matrix products. Ratios and fractions are those of bursts of one round, and what is reported
is their median with the smallest and the largest. Quantised graphs are made on the spot,
calibrated on one half of the images and compared with PyTorch on the other.

The ratio is to the first contender. The fraction is of the measured rate of dense products at
the engine's precision, by the operations that the engine computes.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import click

from derma_bench import options
from derma_bench.engine.kinds import KINDS, REFERENCE, startable
from derma_bench.engine.measure import Plan, measure
from derma_bench.failures import reported
from derma_bench.outcome import finish
from derma_export.samples import folder_samples, synthetic_samples
from derma_semantics.commands.terminal import help_text
from derma_training.bundle import Bundle

SYNTHETIC_IMAGES = 64

# Engines that start within seconds.
SMOKE = (REFERENCE, "ort-fp32", "ort-int8-dynamic")
SMOKE_PLAN = Plan((1, 2), rounds=1, seconds=0.02)
SMOKE_IMAGES = 4


@click.command(help=help_text(__doc__), short_help="One network in many engines, beside the machine's limit.")
@click.argument("folder", metavar="BUNDLE", type=options.FOLDER)
@click.option(
    "--contender",
    "names",
    type=click.Choice(list(KINDS)),
    multiple=True,
    help="May be repeated; the others are compared with the first.  [default: all that can start]",
)
@click.option(
    "--batch", "batches", type=click.IntRange(min=1), multiple=True, help="May be repeated.  [default: 1, 8]"
)
@click.option(
    "--threads", type=click.IntRange(min=0), default=0, help="Of one operator.  [default: all cores]"
)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(min=0.01), default=2.0, show_default=True, help="Of a burst."
)
@options.images("Photographs to calibrate and to compare on; default: drawn.")
@options.out("engine")
@options.smoke("Tiny sizes and few engines, to see that it works.")
def engine(
    folder: Path,
    names: tuple[str, ...],
    batches: tuple[int, ...],
    threads: int,
    rounds: int,
    seconds: float,
    images: Path | None,
    out: Path,
    smoke: bool,
) -> None:
    logging.getLogger().setLevel(logging.ERROR)
    plan = SMOKE_PLAN if smoke else Plan(batches or Plan.batches, rounds, seconds)
    names = tuple(dict.fromkeys(names)) or (SMOKE if smoke else startable())
    with reported(), tempfile.TemporaryDirectory(prefix="derma-bench-") as state:
        bundle = Bundle.open(folder)
        count = SMOKE_IMAGES if smoke else SYNTHETIC_IMAGES
        samples = folder_samples(images) if images else synthetic_samples(count)
        figures, rows = measure(bundle, names, samples, plan, Path(state), threads)
        subject = {
            "bundle_name": bundle.name,
            "bundle_digest": bundle.digest,
            "precision": "each engine its own",
            "threads": threads or "all",
            "payloads": f"{len(samples.names)} images ({samples.source})",
        }
        finish("engine", out, (figures, rows, subject), smoke=smoke)
