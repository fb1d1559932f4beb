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
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from derma_bench import record
from derma_bench.ceiling import Gemm, dense_gemms
from derma_bench.comparison import ratio, spread
from derma_bench.engine_kinds import KINDS, REFERENCE, Contender, Workshop, in_torch, startable
from derma_bench.table import markdown
from derma_export.engine import EngineUnavailable
from derma_export.gate import Runner, companion_effect, in_batches
from derma_export.samples import Samples, folder_samples, synthetic_samples
from derma_semantics.terminal import help_text
from derma_training.bundle import Bundle
from derma_training.classifier import Answers, Classifier

COMPANIONS = 8
CALIBRATION_IMAGES = 128
SYNTHETIC_IMAGES = 64

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Sizes of a measurement; ``seconds`` is one burst."""

    batches: tuple[int, ...] = (1, 8)
    rounds: int = 5
    seconds: float = 2.0


# Engines that start within seconds.
SMOKE = (REFERENCE, "ort-fp32", "ort-int8-dynamic")
SMOKE_PLAN = Plan((1, 2), rounds=1, seconds=0.02)
SMOKE_IMAGES = 4


def measure(
    bundle: Bundle, names: Sequence[str], samples: Samples, plan: Plan, state: Path, threads: int = 0
) -> tuple[dict[str, Any], list[Row]]:
    """Open engines, time them by turns, compare their answers; figures and raw bursts.

    Raises:
        ValueError: fewer than two images, so that none is left to compare on.
        EngineUnavailable: an engine is not installed, or did not start.
    """
    if len(samples.pixels) < 2:
        raise ValueError("two images at least: one half calibrates, the other compares")
    if threads:
        torch.set_num_threads(threads)
    classifier = Classifier.from_bundle(bundle)
    workshop = Workshop(classifier, samples.pixels[::2][:CALIBRATION_IMAGES], state, threads)
    contenders = [KINDS[name].open(name, workshop) for name in tqdm(names, desc="opening engines")]
    gemms = _gemms(contenders, plan, threads, state)
    held_out = samples.pixels[1::2]
    with tqdm(
        total=plan.rounds * (len(gemms) + len(plan.batches) * len(contenders)), desc="measuring"
    ) as bar:
        rows = bursts(contenders, gemms, held_out, plan, bar.update)
    figures = summary(contenders, rows)
    figures["fidelity"] = fidelity(contenders, in_torch(classifier), held_out)
    return figures, rows


def bursts(
    contenders: Sequence[Contender],
    gemms: Sequence[Gemm],
    pixels: Tensor,
    plan: Plan,
    progress: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Every product, and every contender at every batch size, ``rounds`` times over."""
    rows: list[Row] = []
    for number in range(plan.rounds):
        for gemm in gemms:
            rate = gemm.rate(plan.seconds / 10)
            rows.append({"round": number, "precision": gemm.precision, "gemm": str(gemm), "gflops": rate})
            progress()
        for batch in plan.batches:
            images = pixels[torch.arange(batch) % len(pixels)]
            for one in contenders:
                rate = _images_per_s(one.run, images, plan.seconds)
                rows.append({"round": number, "engine": one.name, "batch": batch, "images_per_s": rate})
                progress()
    return rows


def summary(contenders: Sequence[Contender], rows: Sequence[Row]) -> dict[str, Any]:
    """Each engine at each batch size, over the first one and over its ceiling; and the ceilings."""
    ceilings = {row["precision"]: _best_rates(rows, row["precision"]) for row in rows if "gemm" in row}
    batches = sorted({row["batch"] for row in rows if "batch" in row})
    speeds = []
    for batch in batches:
        reference = _rates(rows, contenders[0].name, batch)
        for one in contenders:
            rates = _rates(rows, one.name, batch)
            speeds.append({"engine": one.name, "batch": batch} | _speed(one, rates, reference, ceilings))
    return {"engines": speeds, "ceiling": [_ceiling(rows, p, rates) for p, rates in ceilings.items()]}


def fidelity(contenders: Iterable[Contender], reference: Runner, pixels: Tensor) -> list[Row]:
    """How far each engine's answers are from the reference's, and from its own in other company."""
    truth = in_batches(reference, pixels)
    return [
        {"engine": one.name, "images": len(pixels)}
        | differences(truth, in_batches(one.run, pixels))
        | {"companion_difference": companions(one.run, pixels)}
        for one in contenders
    ]


def differences(truth: Answers, answers: Answers) -> Row:
    """Of embeddings, probabilities and the most probable condition."""
    vectors = [F.normalize(a.embedding.double(), dim=-1) for a in (truth, answers)]
    distance = 1 - (vectors[0] * vectors[1]).sum(dim=-1)
    same = truth.probabilities.argmax(dim=-1) == answers.probabilities.argmax(dim=-1)
    return {
        "min_cosine": 1 - distance.max().item(),
        "mean_cosine": 1 - distance.mean().item(),
        # The same again, because four digits of a cosine say too little.
        "max_cosine_distance": distance.max().item(),
        "max_probability_difference": (truth.probabilities - answers.probabilities).abs().max().item(),
        "top1_agreement": same.double().mean().item(),
    }


def companions(run: Runner, pixels: Tensor, batch: int = COMPANIONS) -> float:
    """Largest change of any image's probabilities between alone and in a batch of others."""
    return max(companion_effect(run, part, batch) for part in pixels.split(batch))


@click.command(help=help_text(__doc__))
@click.argument("folder", metavar="BUNDLE", type=click.Path(exists=True, file_okay=False, path_type=Path))
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
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Photographs to calibrate and to compare on; default: drawn.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(".run/bench/engine.json"),
    show_default=True,
    help="Result to write.",
)
@click.option("--smoke", is_flag=True, help="Tiny sizes and few engines, to see that it works.")
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
    try:
        bundle = Bundle.open(folder)
        count = SMOKE_IMAGES if smoke else SYNTHETIC_IMAGES
        samples = folder_samples(images) if images else synthetic_samples(count)
        with tempfile.TemporaryDirectory(prefix="derma-bench-") as state:
            figures, rows = measure(bundle, names, samples, plan, Path(state), threads)
    except (EngineUnavailable, OSError, ValueError, ImportError) as exc:
        raise click.ClickException(str(exc)) from exc
    subject = {
        "bundle_name": bundle.name,
        "bundle_digest": bundle.digest,
        "precision": "each engine its own",
        "threads": threads or "all",
        "payloads": f"{len(samples.names)} images ({samples.source})",
    }
    made = record.make("engine", figures, rows, smoke=smoke, subject=subject)
    record.write(out, made)
    click.echo(f"{markdown(made)}\nresult in {out}")


def _gemms(contenders: Sequence[Contender], plan: Plan, threads: int, folder: Path) -> list[Gemm]:
    wanted = dict.fromkeys((one.precision, one.device) for one in contenders)
    return [
        gemm
        for precision, device in wanted
        for gemm in dense_gemms(
            precision, batches=plan.batches, threads=threads, folder=folder, device=device
        )
    ]


def _images_per_s(run: Runner, images: Tensor, seconds: float) -> float:
    run(images)  # wakes this engine's threads, and lets the last one's fall asleep
    done, begin = 0, time.perf_counter()
    while not done or time.perf_counter() - begin < seconds:
        run(images)
        done += len(images)
    return done / (time.perf_counter() - begin)


def _rates(rows: Iterable[Row], name: str, batch: int) -> list[float]:
    """Images a second, one a round."""
    return [row["images_per_s"] for row in rows if row.get("engine") == name and row["batch"] == batch]


def _best_rates(rows: Sequence[Row], precision: str) -> list[float]:
    """GFLOP/s of the best product, one a round."""
    found: dict[int, float] = {}
    for row in _products(rows, precision):
        found[row["round"]] = max(row["gflops"], found.get(row["round"], 0.0))
    return [found[number] for number in sorted(found)]


def _products(rows: Iterable[Row], precision: str) -> list[Row]:
    return [row for row in rows if "gemm" in row and row["precision"] == precision]


def _speed(
    one: Contender, rates: Sequence[float], reference: Sequence[float], ceilings: Mapping[str, list[float]]
) -> Row:
    gflops = [rate * one.flops / 1e9 for rate in rates]
    row = {"precision": one.precision, "images_per_s": median(rates)}
    row |= _flat("ms_per_image", spread(1e3 / rate for rate in rates))
    row |= _flat("ratio", ratio(rates, reference))
    row |= {"gflop_per_image": one.flops / 1e9, "gflops": median(gflops)}
    if one.precision in ceilings:
        row |= _flat("fraction", ratio(gflops, ceilings[one.precision]))
    return row


def _ceiling(rows: Sequence[Row], precision: str, rates: Sequence[float]) -> Row:
    fastest = max(_products(rows, precision), key=lambda row: float(row["gflops"]))
    return {"precision": precision, **_flat("gflops", spread(rates)), "fastest": fastest["gemm"]}


def _flat(name: str, values: Mapping[str, float]) -> dict[str, float]:
    """The median under the name itself, so that a table of it needs no nesting."""
    return {name: values["median"], f"{name}_min": values["min"], f"{name}_max": values["max"]}
