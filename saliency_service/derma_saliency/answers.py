"""An explanation as a PNG overlay, JSON or npy.

media_type, body = FORMATS["png"](explanation, image)
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import numpy as np

from derma_semantics.domain.errors import ImageTooLarge
from derma_semantics.saliency import Explanation

# The raw map takes four bytes a pixel; the grid of the JSON says the same in less.
MAX_MAP_PIXELS = 16_000_000


def png(explanation: Explanation, image: bytes) -> bytes:
    """The overlay with its colour bar, as ``Explanation.overlay`` draws it."""
    buffer = io.BytesIO()
    explanation.overlay(image).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def as_json(explanation: Explanation, image: bytes) -> bytes:
    return json.dumps(explanation.to_dict()).encode()


def npy(explanation: Explanation, image: bytes) -> bytes:
    """The map, fp32 (height, width) of the upright photograph, in numpy's format.

    Raises:
        ImageTooLarge: the photograph has more than 16 megapixels.
    """
    width, height = explanation.size
    if width * height > MAX_MAP_PIXELS:
        raise ImageTooLarge(
            f"a map of {width * height / 1e6:.1f} megapixels exceeds the limit of "
            f"{MAX_MAP_PIXELS / 1e6:.0f} for npy: ask for json, whose grid and crop give the same map"
        )
    buffer = io.BytesIO()
    np.save(buffer, explanation.map)
    return buffer.getvalue()


Writer = Callable[[Explanation, bytes], bytes]
DEFAULT_FORMAT = "png"
FORMATS: dict[str, tuple[str, Writer]] = {
    "png": ("image/png", png),
    "json": ("application/json", as_json),
    "npy": ("application/x-npy", npy),
}
