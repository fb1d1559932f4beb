"""Engines measured by turns, and what their bursts say.

    figures, rows = measure(bundle, ("torch-fp32", "openvino-bf16"), samples, Plan(), folder)
    figures["engines"][1]["ratio"], figures["engines"][1]["fraction"]

Ratios and fractions are those of bursts of one round, so that a drifting machine cancels out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from derma_bench.engine.ceiling import Gemm, dense_gemms
from derma_bench.engine.fidelity import fidelity
from derma_bench.engine.graphs import Workshop
from derma_bench.engine.kinds import KINDS, Contender, in_torch
from derma_bench.ratios import ratio, spread
from derma_export.gate import Runner
from derma_export.samples import Samples
from derma_training.bundle import Bundle
from derma_training.network.classifier import Classifier

CALIBRATION_IMAGES = 128

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Sizes of a measurement; ``seconds`` is one burst."""

    batches: tuple[int, ...] = (1, 8)
    rounds: int = 5
    seconds: float = 2.0


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
