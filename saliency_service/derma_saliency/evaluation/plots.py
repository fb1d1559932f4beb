"""The evaluation as pictures.

draw_differences(Path("saliency-difference.png"), report)
draw_cascade(Path("saliency-cascade.png"), report)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from derma_saliency.evaluation.report import HEADER
from derma_saliency.evaluation.statistics import MEASURES
from derma_semantics.evaluation.plots import COLOURS, GREY, STYLE


def draw_differences(path: Path, report: dict[str, Any]) -> None:
    """Each method minus the centred Gaussian, with its interval."""
    names = list(report["prompt_sensitivity"])
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 2.8), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, measure in zip(figure.subplots(1, len(MEASURES), sharey=True), MEASURES, strict=True):
            axes.axvline(0, color=GREY)
            for place, name in enumerate(names):
                found = report["maps"][name][measure]["minus_gaussian"]
                axes.plot(found["interval"], [place, place], color=COLOURS[1])
                axes.plot(found["mean"], place, "o", color=COLOURS[1])
            axes.set(title=HEADER[measure], yticks=range(len(names)), yticklabels=names)
            axes.invert_yaxis() if measure == MEASURES[0] else None
        figure.supxlabel("minus the centred Gaussian")
        figure.savefig(path)


def draw_cascade(path: Path, report: dict[str, Any]) -> None:
    """Rank correlation with the true map, the deeper the tower is randomised."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for colour, (name, found) in zip(COLOURS[1:], report["cascade"].items(), strict=False):
            axes.plot(["none", *found], [1.0, *found.values()], "o-", ms=3, color=colour, label=name)
        axes.axhline(0, color=GREY)
        axes.tick_params(axis="x", rotation=60)
        axes.set(ylabel="rank correlation with the true map", xlabel="random from the top down to")
        axes.legend()
        figure.savefig(path)
