"""How good a classifier's probabilities are, with the uncertainty that goes with them.

    report = measure(probabilities, labels)
    report["balanced_accuracy"], report["melanoma"]["sensitivity"]["value"]

Balanced accuracy is the ISIC 2018 Task 3 metric: the mean recall of the seven conditions.
Accuracy stands only beside it, and sensitivity only beside specificity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from derma_semantics.conditions import CODES, CONDITIONS

MELANOMA = CODES.index("MEL")
MALIGNANT = np.array([condition.malignant for condition in CONDITIONS])
BOOTSTRAPS = 1000

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def measure(probabilities: Floats, labels: Ints, *, seed: int = 0) -> dict[str, Any]:
    """Measure top-1 decisions and calibration.

    Args:
        probabilities: shape (N, 7).
        labels: condition indices, shape (N,); one image a lesion.
    """
    predicted = probabilities.argmax(axis=1)
    return {
        "images": len(labels),
        "balanced_accuracy": {
            "value": balanced_accuracy(predicted, labels),
            "interval_95": _bootstrap(predicted, labels, seed),
        },
        "accuracy": float((predicted == labels).mean()),
        "recall": {
            code: rate(predicted[labels == i] == i) for i, code in enumerate(CODES) if (labels == i).any()
        },
        "melanoma": detection(predicted == MELANOMA, labels == MELANOMA),
        "melanoma_specificity_at_95_sensitivity": specificity_at(
            probabilities[:, MELANOMA], labels == MELANOMA, 0.95
        ),
        "expected_calibration_error": calibration_error(probabilities, labels),
    }


def balanced_accuracy(predicted: Ints, labels: Ints) -> float:
    """Mean recall over the conditions that occur in ``labels``."""
    return float(np.mean([(predicted[labels == c] == c).mean() for c in np.unique(labels)]))


def detection(positive: Bools, truth: Bools) -> dict[str, Any]:
    """Sensitivity and specificity of a yes-no decision, always together."""
    return {"sensitivity": rate(positive[truth]), "specificity": rate(~positive[~truth])}


def rate(hits: Bools) -> dict[str, Any]:
    """A proportion with its exact 95 % interval (Clopper-Pearson)."""
    if len(hits) == 0:
        return {"value": None, "n": 0, "interval_95": None}
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="exact")
    return {
        "value": float(hits.mean()),
        "n": len(hits),
        "interval_95": [float(interval.low), float(interval.high)],
    }


def threshold_for_sensitivity(scores: Floats, truth: Bools, sensitivity: float) -> float:
    """The highest threshold at which ``scores >= threshold`` finds that share of the positives."""
    positives = np.sort(scores[truth])[::-1]
    needed = int(np.ceil(sensitivity * len(positives) - 1e-9))
    return float(positives[needed - 1])


def specificity_at(scores: Floats, truth: Bools, sensitivity: float) -> float:
    """Specificity at the highest threshold that reaches ``sensitivity``."""
    return float((scores[~truth] < threshold_for_sensitivity(scores, truth, sensitivity)).mean())


def calibration_error(probabilities: Floats, labels: Ints, bins: int = 15) -> float:
    """Expected calibration error of the top-1 probability (Guo et al., arXiv 1706.04599)."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[index == b].mean() - correct[index == b].mean()) * (index == b).mean()
        for b in np.unique(index)
    ]
    return float(np.sum(gaps))


def _bootstrap(predicted: Ints, labels: Ints, seed: int) -> list[float]:
    """95 % interval of balanced accuracy, resampling within each condition."""
    rng = np.random.default_rng(seed)
    hits = [predicted[labels == c] == c for c in np.unique(labels)]
    recalls = [rng.binomial(len(h), h.mean(), BOOTSTRAPS) / len(h) for h in hits]
    return [float(q) for q in np.quantile(np.mean(recalls, axis=0), [0.025, 0.975])]
