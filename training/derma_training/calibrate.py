"""Temperature and triage thresholds from a calibration set.

Temperature scaling: Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599.
Every condition weighs the same, so probabilities are those of a clinic in which the seven
conditions are equally frequent; thresholds are set on the calibration set as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from derma_training.bundle import Calibration
from derma_training.metrics import (
    MALIGNANT,
    MELANOMA,
    Floats,
    Ints,
    detection,
    threshold_for_sensitivity,
)

REVIEW_SENSITIVITY = 0.95
URGENT_SPECIFICITY = 0.95


def calibrate(probabilities: Floats, labels: Ints, *, name: str) -> Calibration:
    """Choose temperature and thresholds.

    ``review`` is the highest threshold on RISK that finds 95 % of the melanomas and 95 % of
    all malignant and pre-malignant lesions; ``urgent`` is the lowest, to
    four decimals, below which at least 95 % of the benign lesions stay.

    Args:
        probabilities: at temperature 1, shape (N, 7).
        labels: condition indices, shape (N,).
        name: what the calibration set is, for the report.
    """
    logits = np.log(probabilities.clip(min=np.finfo(np.float32).tiny))
    temperature = fit_temperature(logits, labels)
    risk = softmax(logits / temperature, axis=1)[:, MALIGNANT].sum(axis=1)
    malignant, melanoma = MALIGNANT[labels], labels == MELANOMA
    reach = min(
        threshold_for_sensitivity(risk, malignant, REVIEW_SENSITIVITY),
        threshold_for_sensitivity(risk, melanoma, REVIEW_SENSITIVITY),
    )
    # Four decimals, outwards, so that fp32 rounding moves no image across its own threshold.
    review = float(np.floor(reach * 1e4) / 1e4)
    above = np.quantile(risk[~malignant], URGENT_SPECIFICITY, method="higher")
    urgent = max(review, float(np.floor(above * 1e4 + 1) / 1e4))
    report = {
        "target": {"review_sensitivity": REVIEW_SENSITIVITY, "urgent_specificity": URGENT_SPECIFICITY},
        "calibration_set": {"name": name, "images": len(labels), "malignant": int(malignant.sum())},
        "achieved": {
            "review": triage_report(risk >= review, labels),
            "urgent": triage_report(risk >= urgent, labels),
        },
        "assumes": "new images are exchangeable with the calibration set; intervals are Clopper-Pearson 95 %",
    }
    return Calibration(temperature, review, urgent, report)


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """The temperature with the least negative log likelihood, conditions weighed equally."""
    weights = 1 / np.bincount(labels)[labels]

    def loss(log_temperature: float) -> float:
        scores = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-np.average(scores[np.arange(len(labels)), labels], weights=weights))

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def triage_report(flagged: Any, labels: Ints) -> dict[str, Any]:
    """What flagging these images achieves, for melanoma and for malignancy."""
    return {
        "melanoma": detection(flagged, labels == MELANOMA),
        "malignancy": detection(flagged, MALIGNANT[labels]),
    }
