"""Engines measured by turns, over the first of them and over the rate of dense products.

    figures, rows = measure(bundle, ("torch-fp32", "openvino-bf16"), samples, Plan(), folder)
    figures["engines"][1]["ratio"], figures["engines"][1]["fraction"]

Ratios and fractions are those of bursts of one round, so that a drifting machine cancels out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from derma_bench.engine.ceiling import Gemm, dense_gemms
from derma_bench.engine.contenders import Contender, fidelity, in_torch, opened
from derma_bench.engine.graphs import Workshop
from derma_bench.turns import Row, Turn, by_turns, column, flat, ratio, select, spread
from derma_export.gate import Runner
from derma_export.samples import Samples
from derma_training.bundle import Bundle
from derma_training.network.classifier import Classifier

CALIBRATION_IMAGES = 128


@dataclass(frozen=True)
class Plan:
    """Sizes of a measurement; ``seconds`` is one burst."""

    batches: tuple[int, ...] = (1, 8)
    rounds: int = 5
    seconds: float = 2.0


def measure(
    bundle: Bundle, names: Sequence[str], samples: Samples, plan: Plan, state: Path, threads: int = 0
) -> tuple[Row, list[Row]]:
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
    contenders = [opened(name, workshop) for name in names]
    gemms = [
        gemm
        for precision in dict.fromkeys(one.precision for one in contenders)
        for gemm in dense_gemms(precision, batches=plan.batches, threads=threads, folder=state)
    ]
    held_out = samples.pixels[1::2]
    rows = by_turns(turns(contenders, gemms, held_out, plan), plan.rounds)
    figures = summary(contenders, rows)
    figures["fidelity"] = fidelity(contenders, in_torch(classifier), held_out)
    return figures, rows


def turns(contenders: Sequence[Contender], gemms: Sequence[Gemm], pixels: Tensor, plan: Plan) -> list[Turn]:
    """Every product, and every contender at every batch size."""
    found: list[Turn] = [
        ({"precision": gemm.precision, "gemm": str(gemm)}, partial(_gflops, gemm, plan.seconds / 10))
        for gemm in gemms
    ]
    for batch in plan.batches:
        images = pixels[torch.arange(batch) % len(pixels)]
        found += [
            ({"engine": one.name, "batch": batch}, partial(_images_per_s, one.run, images, plan.seconds))
            for one in contenders
        ]
    return found


def summary(contenders: Sequence[Contender], rows: Sequence[Row]) -> Row:
    """Each engine at each batch size, over the first one and over its ceiling; and the ceilings."""
    products = [row for row in rows if "gemm" in row]
    precisions = list(dict.fromkeys(row["precision"] for row in products))
    ceilings = {precision: _best_rates(select(products, precision=precision)) for precision in precisions}
    speeds = []
    for batch in sorted({row["batch"] for row in rows if "batch" in row}):
        reference = column(rows, "images_per_s", engine=contenders[0].name, batch=batch)
        for one in contenders:
            rates = column(rows, "images_per_s", engine=one.name, batch=batch)
            speeds.append({"engine": one.name, "batch": batch} | _speed(one, rates, reference, ceilings))
    return {
        "engines": speeds,
        "ceiling": [_ceiling(select(products, precision=p), p, rates) for p, rates in ceilings.items()],
    }


def _gflops(gemm: Gemm, seconds: float) -> Row:
    return {"gflops": gemm.rate(seconds)}


def _images_per_s(run: Runner, images: Tensor, seconds: float) -> Row:
    run(images)  # wakes this engine's threads, and lets the last one's fall asleep
    done, begin = 0, time.perf_counter()
    while not done or time.perf_counter() - begin < seconds:
        run(images)
        done += len(images)
    return {"images_per_s": done / (time.perf_counter() - begin)}


def _best_rates(products: Sequence[Row]) -> list[float]:
    """GFLOP/s of the best product, one a round."""
    rounds = sorted({row["round"] for row in products})
    return [max(column(products, "gflops", round=number)) for number in rounds]


def _speed(
    one: Contender, rates: Sequence[float], reference: Sequence[float], ceilings: Mapping[str, list[float]]
) -> Row:
    gflops = [rate * one.flops / 1e9 for rate in rates]
    row = {"precision": one.precision, "images_per_s": median(rates)}
    row |= flat("ms_per_image", spread(1e3 / rate for rate in rates))
    row |= flat("ratio", ratio(rates, reference))
    row |= {"gflop_per_image": one.flops / 1e9, "gflops": median(gflops)}
    if one.precision in ceilings:
        row |= flat("fraction", ratio(gflops, ceilings[one.precision]))
    return row


def _ceiling(products: Sequence[Row], precision: str, rates: Sequence[float]) -> Row:
    fastest = max(products, key=lambda row: float(row["gflops"]))
    return {"precision": precision, **flat("gflops", spread(rates)), "fastest": fastest["gemm"]}
