"""A photograph under a heat map, with its colour bar.

    picture = draw_overlay(photograph, relevance, opacity=0.5)      # relevance: (H, W) in [0, 1]

The one place that draws it: the saliency sidecar and ``Explanation.overlay`` both call it.
The colours are viridis: they look evenly spaced, also to colour-blind readers, and differ from skin.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

COLOURS = "viridis"
# A photograph of 50 megapixels would take half a minute to draw, for no eye's benefit.
MAX_SIDE = 2048
_MISSING = "drawing needs matplotlib: pip install 'derma-semantics[app]'"


def drawn_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height at which a photograph is drawn: its own, at most 2048 a side."""
    scale = min(1.0, MAX_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def draw_overlay(
    photograph: Image.Image,
    relevance: NDArray[np.float32],
    crop: tuple[float, float, float, float],
    *,
    opacity: float = 0.5,
) -> Image.Image:
    """The photograph with the map over what the network saw, and a colour bar at its right.

    Args:
        photograph: upright, mode RGB.
        relevance: (height, width) of the photograph, in [0, 1].
        crop: left, top, right, bottom of what the network saw; a line shows it.
        opacity: of the map where relevance is 0.5 or more, in [0, 1]; below, it fades out.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: opacity is out of range.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be between 0 and 1, got {opacity}")
    heat = Image.fromarray(_colours(relevance))
    # Where nothing speaks for the text, the skin is left to be seen.
    strength = Image.fromarray((255 * opacity * (2 * relevance).clip(0, 1)).astype(np.uint8))
    painted = Image.composite(heat, photograph, strength)
    if crop != (0, 0, *photograph.size):
        ImageDraw.Draw(painted).rectangle(_edges(crop), outline="white", width=1)
    bar = _bar(photograph.height)
    canvas = Image.new("RGB", (photograph.width + bar.width, photograph.height), "white")
    canvas.paste(painted, (0, 0))
    canvas.paste(bar, (photograph.width, 0))
    return canvas


def _edges(crop: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    left, top, right, bottom = (round(edge) for edge in crop)
    return left, top, right - 1, bottom - 1


def _colours(relevance: NDArray[np.float32]) -> NDArray[np.uint8]:
    try:
        from matplotlib import colormaps
    except ImportError as exc:
        raise ImportError(_MISSING) from exc
    table = np.asarray(colormaps[COLOURS](np.arange(256), bytes=True), dtype=np.uint8)[:, :3]
    return table[(relevance.clip(0, 1) * 255).round().astype(np.uint8)]


@lru_cache(maxsize=16)
def _bar(height: int) -> Image.Image:
    """A colour bar of this height in pixels, with its ticks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    dpi = min(200.0, max(40.0, height / 4))
    figure = Figure(figsize=(0.9, height / dpi), dpi=dpi)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.15, 0.06, 0.2, 0.88))
    bar = figure.colorbar(ScalarMappable(cmap=COLOURS), cax=axes, ticks=[0, 0.5, 1])
    bar.set_label("relevance", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    image = Image.open(buffer).convert("RGB")
    return image if image.height == height else image.resize((image.width, height))
