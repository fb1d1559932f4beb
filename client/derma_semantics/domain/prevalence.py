"""Probabilities for a place where the seven conditions are not equally frequent.

    at_prevalence(probabilities, counts)                  # arrays, (N, 7) and (7,)
    diagnosis.at_prevalence({"MEL": 40, "NV": 900, ...})  # code → probability

A bundle's probabilities are those of a place that sees all conditions equally often, which suits
naming. To rank lesions by how likely they are this or that, weigh them by how frequent each is, as
RISK does.

Source: Saerens, Latinne and Decaestecker, Neural Computation 14 (2002), 21-41.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def at_prevalence(probabilities: NDArray[np.float64], prevalence: ArrayLike) -> NDArray[np.float64]:
    """Weigh and normalise. Rows of zeros, which stand for no answer, stay zeros; so do those of conditions
    that never occur.

    Args:
        probabilities: shape (N, 7).
        prevalence: how frequent each condition is, shape (7,): shares, percentages or counts.

    Raises:
        ValueError: not one number a condition, a negative one, or none above zero.
    """
    frequencies = np.asarray(prevalence, dtype=np.float64)
    if frequencies.shape != probabilities.shape[1:]:
        raise ValueError(f"prevalence needs {probabilities.shape[1]} numbers, got shape {frequencies.shape}")
    if not np.isfinite(frequencies).all() or (frequencies < 0).any() or not frequencies.any():
        raise ValueError(f"prevalence must be finite, not negative, not all zero: {frequencies.tolist()}")
    weighed = probabilities * (frequencies / frequencies.sum())
    total = weighed.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(weighed, total, out=np.zeros_like(weighed), where=total != 0))
