"""Runs as tables and PNG plots in one folder.

    write_report([Path("service.json"), Path("engine.json")], Path("report"))

``table.md`` links the plots, so that the folder can be moved. The plots of a run depend on what was
measured; none needs a display. Colours are Okabe and Ito's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from derma_bench.report.record import read
from derma_bench.report.table import inside, markdown
from derma_semantics.evaluation.plots import GREY, STYLE

Record = Mapping[str, Any]
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000", "#777777")
MARKERS = "osD^v"


def write_report(runs: Sequence[Path], out: Path) -> list[Path]:
    """Write ``table.md`` and the plots, a folder of plots for each run where there are several.

    Raises:
        ValueError: a file is no run.
    """
    records = [read(path) for path in runs]
    out.mkdir(parents=True, exist_ok=True)
    plots, parts = [], []
    for path, record in zip(runs, records):
        drawn = draw(record, out / path.stem if len(runs) > 1 else out)
        links = "\n".join(f"![{plot.stem}]({plot.relative_to(out).as_posix()})" for plot in drawn)
        parts.append(f"{markdown(record)}\n{links}\n" if links else markdown(record))
        plots += drawn
    (out / "table.md").write_text("# Benchmarks\n\n" + "\n".join(parts))
    return [out / "table.md", *plots]


def draw(record: Record, folder: Path) -> list[Path]:
    """Write the plots that this run has figures for; returns their paths."""
    figures, smoke = record["figures"], record["smoke"]
    written = []
    for name, (needed, plot) in PLOTS.items():
        if needed(figures):
            path = folder / f"{record['command']}-{name}.png"
            with _axes(path, smoke) as axes:
                plot(axes, figures)
            written.append(path)
    return written


def throughput(axes: Axes, figures: Record) -> None:
    """Images a second against requests under way; bars from the slowest to the fastest repeat."""
    levels = figures["levels"]
    places = [one["concurrency"] for one in levels]
    for name, colour, marker in zip(levels[0]["contenders"], cycle(COLOURS), cycle(MARKERS)):
        rates = [one["contenders"][name]["throughput"] for one in levels]
        middle = np.array([rate["median"] for rate in rates])
        below = middle - [rate["min"] for rate in rates]
        above = [rate["max"] for rate in rates] - middle
        axes.errorbar(
            places, middle, [below, above], label=name, color=colour, marker=marker, markersize=4, capsize=3
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [str(place) for place in places])
    axes.set_ylim(bottom=0)
    axes.set(xlabel="requests under way", ylabel="images a second", title="Throughput")
    axes.legend()


def latency(axes: Axes, figures: Record) -> None:
    """p50, p95 and p99 against the rate of arrivals, up to saturation and past it."""
    curve = [one for one in figures["load_curve"] if one["latency_ms"]]
    for quantile, colour, marker in zip(("p50", "p95", "p99"), COLOURS, MARKERS):
        values = [one["latency_ms"][quantile] for one in curve]
        axes.plot(
            [one["rate"] for one in curve], values, label=quantile, color=colour, marker=marker, markersize=4
        )
    axes.axhline(figures["p99_limit_ms"], color=GREY, linestyle="--", linewidth=1)
    axes.annotate(
        "limit of p99",
        (0.01, figures["p99_limit_ms"]),
        xycoords=("axes fraction", "data"),
        va="bottom",
        fontsize=8,
    )
    axes.set_yscale("log")
    axes.set(xlabel="arrivals a second (Poisson)", ylabel="ms since the request was due", title="Latency")
    axes.legend()


def stages(axes: Axes, figures: Record) -> None:
    """The stages of an average request, one bar a concurrency and configuration."""
    found = inside(figures["levels"])
    bars = [(place, name, one["stages_ms"]) for name, rows in found.items() for place, one in rows]
    bars.sort(key=lambda bar: bar[0])
    places, bottom = np.arange(len(bars)), np.zeros(len(bars))
    for number, stage in enumerate(bars[0][2]):
        values = np.array([one.get(stage, 0.0) for *_, one in bars])
        hatch = "//" if number >= len(COLOURS) else None
        colour = COLOURS[number % len(COLOURS)]
        axes.bar(places, values, 0.6, bottom=bottom, label=stage, color=colour, hatch=hatch)
        bottom += values
    labels = [f"{name}, {place}" if len(found) > 1 else str(place) for place, name, _ in bars]
    axes.set_xticks(places, labels)
    if len(found) > 1:
        axes.tick_params("x", rotation=90)
    axes.set(xlabel="requests under way", ylabel="ms a request, mean", title="Where the time goes")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), reverse=True)


def ceiling(axes: Axes, figures: Record) -> None:
    """Each engine's share of the measured GEMM rate."""
    shares = gemm_shares(figures)
    places = np.arange(len(shares))
    axes.barh(places, list(shares.values()), color=COLOURS[0])
    axes.set_yticks(places, list(shares))
    axes.invert_yaxis()
    axes.axvline(1.0, color=GREY, linestyle="--", linewidth=1)
    axes.set(xlabel="share of the measured GEMM rate at the same precision", title="Engines")


def gemm_shares(figures: Record) -> dict[str, float]:
    """By engine and batch; empty where none was measured."""
    rows = figures.get("engines", [])
    return {_engine(row): row["fraction"] for row in rows if row.get("fraction") is not None}


def _engine(row: Record) -> str:
    return f"{row.get('engine', '')} batch {row.get('batch', '')}".strip()


PLOTS: dict[str, tuple[Any, Any]] = {
    "throughput": (lambda figures: "levels" in figures, throughput),
    "stages": (lambda figures: bool(inside(figures.get("levels", []))), stages),
    "latency": (lambda figures: any(one["latency_ms"] for one in figures.get("load_curve", [])), latency),
    "ceiling": (lambda figures: bool(gemm_shares(figures)), ceiling),
}


@contextmanager
def _axes(path: Path, smoke: bool) -> Iterator[Axes]:
    """Axes whose figure is written when the block ends."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        yield axes
        if smoke:
            figure.text(0.5, 0.5, "SMOKE", size=60, color="#D55E00", alpha=0.25, ha="center", va="center")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
