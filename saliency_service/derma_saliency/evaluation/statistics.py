"""Means over images, and paired differences with intervals.

figures = summarise(rows, "attention")      # rows: one dict an image
figures["energy"]["minus_gaussian"]         # {"mean": 0.16, "interval": [0.15, 0.17]}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from derma_saliency.methods import DEFAULT
from derma_semantics.evaluation.bootstrap import DRAWS, LEVELS

MEASURES = ("energy", "pointing", "deletion", "insertion")
RIVALS = ("gaussian", "random")
Row = dict[str, Any]


def summarise(rows: Sequence[Row], method: str) -> dict[str, Any]:
    """By measure: mean, images, and differences from the rivals and the default with 95 % intervals."""
    figures: dict[str, Any] = {}
    for measure in MEASURES:
        chosen = [row["measures"] for row in rows if measure in row["measures"][method]]
        if not chosen:
            continue
        values = np.array([m[method][measure] for m in chosen])
        figures[measure] = {"mean": float(values.mean()), "images": len(values)}
        for rival in (r for r in (*RIVALS, DEFAULT) if r != method):
            others = np.array([m[rival][measure] for m in chosen])
            figures[measure][f"minus_{rival}"] = difference(values, others)
    return figures


def difference(values: np.ndarray, others: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Mean of paired differences and its percentile interval, from 1,000 draws of images."""
    differences = values - others
    draws = np.random.default_rng(seed).integers(len(differences), size=(DRAWS, len(differences)))
    interval = np.quantile(differences[draws].mean(axis=1), LEVELS)
    return {"mean": float(differences.mean()), "interval": [float(edge) for edge in interval]}
