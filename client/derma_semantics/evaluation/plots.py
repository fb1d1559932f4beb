"""Confusion matrix, ROC curves and reliability diagram as PNG.

    draw_confusion(Path("confusion.png"), report["confusion"])
    draw_roc(Path("roc.png"), probabilities, labels, report["triage"])
    draw_reliability(Path("reliability.png"), probabilities, labels)
    draw_risk(Path("risk.png"), risk, labels, {"review": 0.0084, "urgent": 0.3498})

Colours are Okabe and Ito's, which colour-blind readers tell apart; no display is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.numbers import significant
from derma_semantics.evaluation.metrics import (
    BINS,
    MALIGNANT,
    MELANOMA,
    Floats,
    Ints,
    auc,
    mean_gap,
    reliability,
    risk_bins,
)

COLOURS = ("#000000", "#0072B2", "#E69F00", "#CC79A7", "#009E73", "#56B4E9", "#D55E00")
# TRIAGE compares RISK with its thresholds, not the probability of melanoma.
ROC_TITLE = "ROC, one condition against the rest\n(triage goes by RISK, so its points may lie off the curve)"
GREY = "#777777"
LOWEST_SHOWN = 1e-8  # RISK
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "figure.dpi": 150,
}


def draw_confusion(path: Path, confusion: dict[str, Any]) -> None:
    """Counts, and how they share each true condition's row, coloured by the share."""
    counts = np.array(confusion["counts"])
    columns = list(confusion["columns"])
    if not counts[:, -1].any():
        counts, columns = counts[:, :-1], columns[:-1]
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    rows = [f"{code}\nn = {n}" for code, n in zip(confusion["rows"], totals[:, 0], strict=True)]
    with _figure(path, (7.4, 6.2)) as figure:
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix: images and percent of the row")
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(visible=False)
        for (row, column), count in np.ndenumerate(counts):
            share = shares[row, column]
            percent = "<1%" if share < 0.01 else f"{share:.0%}"
            text = f"{count}\n{percent}" if count else "0"
            axes.text(column, row, text, ha="center", va="center", color="white" if share > 0.5 else "black")
        figure.colorbar(image, ax=axes, label="share of the row", fraction=0.045, pad=0.03)


def draw_roc(path: Path, probabilities: Floats, labels: Ints, triage: dict[str, Any]) -> None:
    """One condition against the rest, and where the triage levels stand for melanoma."""
    with _figure(path, (6.6, 6.4)) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        for index, code in enumerate(CODES):
            truth = labels == index
            if (area := auc(probabilities[:, index], truth)) is None:
                continue
            across, up, _ = roc_curve(truth, probabilities[:, index])
            width = 2.8 if index == MELANOMA else 1.5
            axes.plot(across, up, color=COLOURS[index], linewidth=width, label=f"{code}  AUC {area:.3f}")
        for marker, level in (("o", "review"), ("^", "urgent")):
            _operating_point(axes, level, triage[level]["melanoma"], marker)
        axes.set(
            xlabel="1 - specificity",
            ylabel="sensitivity",
            title=ROC_TITLE,
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            aspect="equal",
        )
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right")


def draw_reliability(path: Path, probabilities: Floats, labels: Ints) -> None:
    """Accuracy against the probability of the first condition, and how often each occurs."""
    rows = reliability(probabilities, labels)
    error, total = mean_gap(rows), sum(row["images"] for row in rows)
    centres = [(row["bin"] + 0.5) / BINS for row in rows]
    with _figure(path, (6.0, 6.8)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="perfect")
        upper.bar(centres, [r["accuracy"] for r in rows], 0.9 / BINS, color=COLOURS[5], label="accuracy")
        upper.plot(
            [r["confidence"] for r in rows],
            [r["accuracy"] for r in rows],
            "o-",
            color=COLOURS[1],
            label="accuracy at the bin's mean",
        )
        found = "no answers" if error is None else f"ECE {error:.3f} ({BINS} bins, {total} images)"
        upper.set(ylabel="accuracy", ylim=(0, 1.02), title=f"Reliability: {found}")
        upper.legend(loc="upper left")
        lower.bar(centres, [r["images"] for r in rows], 0.9 / BINS, color=COLOURS[1])
        lower.set(xlabel="probability of the first condition", ylabel="images", xlim=(0, 1))


def draw_risk(path: Path, risk: Floats, labels: Ints, thresholds: Mapping[str, float] | None = None) -> None:
    """The share of malignant and pre-malignant lesions against RISK, how many there are, and thresholds.

    Both axes are logarithmic, for most lesions have a RISK near 0. What is lower stands at the edge.
    """
    rows, levels = risk_bins(risk, labels), thresholds or {}
    shown = [value for row in rows for value in (row["risk"], row["malignant"]["value"])]
    lowest = max(min(value for value in (*shown, *levels.values(), 0.01) if value > 0) / 3, LOWEST_SHOWN)
    with _figure(path, (6.4, 6.8)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([lowest, 1], [lowest, 1], color=GREY, linewidth=1, linestyle=":", label="as RISK says")
        _draw_shares(upper, rows, lowest)
        edges = np.geomspace(lowest, 1, 41)
        malignant = MALIGNANT[labels]
        kinds = [risk[malignant].clip(lowest, 1), risk[~malignant].clip(lowest, 1)]
        names = ["malignant or pre-malignant", "benign"]
        lower.hist(kinds, edges, stacked=True, color=[COLOURS[6], COLOURS[5]], label=names)
        for level, style in (("review", "--"), ("urgent", "-.")):
            if level in levels:
                threshold, name = max(levels[level], lowest), f"{level}: {significant(levels[level])}"
                upper.axvline(threshold, color=GREY, linestyle=style, label=name)
                lower.axvline(threshold, color=GREY, linestyle=style)
        title = (
            f"Malignant or pre-malignant lesions, by RISK\n({len(risk)} images, about as many in each bin)"
        )
        upper.set(ylabel="share malignant or pre-malignant", yscale="log", ylim=(lowest, 1.15), title=title)
        lower.set(xlabel="RISK", ylabel="images", xscale="log", xlim=(lowest, 1.15))
        upper.legend(loc="upper left", frameon=True, framealpha=1, edgecolor="none")
        lower.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def _draw_shares(axes: Axes, rows: list[dict[str, Any]], lowest: float) -> None:
    """Each bin's share with its interval; where none is malignant, the interval from the edge up."""
    for row in rows:
        low, high = row["malignant"]["interval_95"]
        axes.plot([max(row["risk"], lowest)] * 2, [max(low, lowest), high], color=COLOURS[1], linewidth=1.5)
    for some, marker, label in ((True, "o", "a bin"), (False, "v", "a bin with none")):
        if chosen := [row for row in rows if (row["malignant"]["value"] > 0) == some]:
            axes.plot(
                [max(row["risk"], lowest) for row in chosen],
                [max(row["malignant"]["value"], lowest) for row in chosen],
                marker,
                color=COLOURS[1],
                clip_on=False,
                label=f"{label}, 95 % interval",
            )


def _operating_point(axes: Axes, level: str, both: dict[str, Any], marker: str) -> None:
    sensitivity, specificity = both["sensitivity"]["value"], both["specificity"]["value"]
    if sensitivity is None or specificity is None:
        return
    axes.plot(
        1 - specificity,
        sensitivity,
        marker,
        color=COLOURS[MELANOMA],
        markerfacecolor="white",
        markeredgewidth=1.8,
        markersize=9,
        zorder=4,
        linestyle="none",
        label=f"melanoma at {level}: sens. {sensitivity:.2f}, spec. {specificity:.2f}",
    )


@contextmanager
def _figure(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure in the house style, written to ``path`` at the end."""
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(path, metadata={"Software": None})
