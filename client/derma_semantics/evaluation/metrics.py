"""How good a classifier's probabilities are, as numbers that go together.

    report = measure(probabilities, labels)
    report["balanced_accuracy"], report["melanoma"]["sensitivity"]["value"]
    report["conditions"]["BCC"]["specificity"]["interval_95"]

Balanced accuracy is the ISIC 2018 Task 3 metric: the mean recall of the seven conditions.
Accuracy stands only beside it, and sensitivity only beside specificity.

An image that got no answer has probabilities of zero. It is wrong: a miss in every
sensitivity, in accuracy and in balanced accuracy, last in every ranking, and never a true
negative: specificities, calibration and the size of prediction sets are those of the
answered images. Where two probabilities tie for the maximum no condition is predicted,
as the official scorer has it, which makes the image wrong as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, rankdata

from derma_semantics.domain.conditions import CODES, CONDITIONS
from derma_semantics.domain.prevalence import at_prevalence

MELANOMA = CODES.index("MEL")
MALIGNANT = np.array([condition.malignant for condition in CONDITIONS])
UNDECIDED = -1
BINS = 15
RISK_BINS = 10

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def measure(probabilities: Floats, labels: Ints) -> dict[str, Any]:
    """Measure top-1 decisions, rankings and calibration.

    Args:
        probabilities: shape (N, 7); zeros where there is no answer.
        labels: condition indices, shape (N,).
    """
    predicted, answered = decide(probabilities), is_answered(probabilities)
    return {
        "images": len(labels),
        "unanswered": int((~answered).sum()),
        "balanced_accuracy": {"value": balanced_accuracy(predicted, labels)},
        "accuracy": float((predicted == labels).mean()),
        "conditions": {
            code: {
                **detection(predicted == i, labels == i, answered),
                "auc": auc(probabilities[:, i], labels == i),
            }
            for i, code in enumerate(CODES)
        },
        "macro_auc": macro_auc(probabilities, labels),
        "melanoma": detection(predicted == MELANOMA, labels == MELANOMA, answered),
        **{
            f"melanoma_specificity_at_{level}_sensitivity": melanoma_specificity_at(
                probabilities, labels, level / 100
            )
            for level in (90, 95)
        },
        "at_prevalence": ranking_at_prevalence(probabilities, labels),
        "expected_calibration_error": calibration_error(probabilities, labels),
        "brier": brier(probabilities, labels),
        "confusion": confusion(predicted, labels),
    }


def ranking_at_prevalence(probabilities: Floats, labels: Ints) -> dict[str, Any]:
    """How melanomas rank once conditions are weighed by how frequent they are among these images.

    Whoever knows a place's frequencies can weigh so too; it changes no decision.
    """
    counts = np.bincount(labels, minlength=len(CODES))
    weighed = at_prevalence(probabilities, counts)
    return {
        "images": dict(zip(CODES, counts.tolist(), strict=True)),
        "melanoma_auc": auc(weighed[:, MELANOMA], labels == MELANOMA),
        "melanoma_specificity_at_90_sensitivity": melanoma_specificity_at(weighed, labels, 0.90),
        "melanoma_specificity_at_95_sensitivity": melanoma_specificity_at(weighed, labels, 0.95),
    }


def is_answered(probabilities: Floats) -> Bools:
    """Which rows are answers, and not the zeros that stand for none."""
    return np.asarray(probabilities.any(axis=1))


def decide(probabilities: Floats) -> Ints:
    """The index of the one highest probability, ``UNDECIDED`` where several share it."""
    highest = probabilities == probabilities.max(axis=1, keepdims=True)
    return np.where(highest.sum(axis=1) == 1, highest.argmax(axis=1), UNDECIDED)


def balanced_accuracy(predicted: Ints, labels: Ints) -> float:
    """Mean recall over the conditions that occur in ``labels``."""
    return float(np.mean([(predicted[labels == c] == c).mean() for c in np.unique(labels)]))


def detection(positive: Bools, truth: Bools, answered: Bools | None = None) -> dict[str, Any]:
    """Sensitivity and specificity of a yes-no decision, always together."""
    negative = ~truth if answered is None else ~truth & answered
    return {"sensitivity": rate(positive[truth]), "specificity": rate(~positive[negative])}


def triage_report(flagged: Bools, labels: Ints, answered: Bools | None = None) -> dict[str, Any]:
    """What flagging these images achieves, for melanoma and for malignancy."""
    return {
        "melanoma": detection(flagged, labels == MELANOMA, answered),
        "malignancy": detection(flagged, MALIGNANT[labels], answered),
    }


def risk_report(risk: Floats, labels: Ints, answered: Bools) -> dict[str, Any]:
    """How well RISK ranks malignancy, and whether as many are malignant as it says.

    Args:
        risk: shape (N,); zero where there is no answer.
        answered: whether there is one, shape (N,).
    """
    rows = risk_reliability(risk[answered], labels[answered])
    return {
        "malignancy_auc": auc(risk, MALIGNANT[labels]),
        "mean": float(risk[answered].mean()) if answered.any() else None,
        "malignant": rate(MALIGNANT[labels][answered]),
        "expected_calibration_error": mean_gap(rows),
    }


def prediction_set_report(sets: Bools, labels: Ints, answered: Bools | None = None) -> dict[str, Any]:
    """How often sets of conditions, bool (N, 7), hold the true one, and how large they are."""
    covered = sets[np.arange(len(labels)), labels]
    sizes = sets.sum(axis=1) if answered is None else sets[answered].sum(axis=1)
    return {
        "coverage": rate(covered),
        "coverage_of": {code: rate(covered[labels == i]) for i, code in enumerate(CODES)},
        "mean_size": float(sizes.mean()) if len(sizes) else None,
        "images_of_size": np.bincount(sizes, minlength=len(CODES) + 1).tolist(),
    }


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


def auc(scores: Floats, truth: Bools) -> float | None:
    """Area under the ROC curve, ties counted half; None without positives or negatives."""
    return _areas(scores[:, None], truth[:, None])[0]


def macro_auc(probabilities: Floats, labels: Ints) -> float | None:
    """Mean one-against-the-rest AUC; None unless every condition occurs."""
    areas = _areas(probabilities, labels[:, None] == np.arange(len(CODES)))
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if len(known) == len(CODES) else None


def threshold_for_sensitivity(scores: Floats, truth: Bools, sensitivity: float) -> float:
    """The highest threshold at which ``scores >= threshold`` finds that share of the positives."""
    positives = np.sort(scores[truth])[::-1]
    needed = int(np.ceil(sensitivity * len(positives) - 1e-9))
    return float(positives[needed - 1])


def specificity_at(scores: Floats, truth: Bools, sensitivity: float) -> float:
    """Specificity at the highest threshold that reaches ``sensitivity``."""
    return float((scores[~truth] < threshold_for_sensitivity(scores, truth, sensitivity)).mean())


def melanoma_specificity_at(probabilities: Floats, labels: Ints, sensitivity: float) -> float | None:
    """For melanoma against the rest; None without melanomas or without others."""
    truth = labels == MELANOMA
    counted = truth | is_answered(probabilities)
    if not truth.any() or truth[counted].all():
        return None
    return specificity_at(probabilities[counted, MELANOMA], truth[counted], sensitivity)


def reliability(probabilities: Floats, labels: Ints, bins: int = BINS) -> list[dict[str, Any]]:
    """Answered images by top-1 probability: each non-empty bin's count, confidence, accuracy."""
    answered = is_answered(probabilities)
    confidence = probabilities[answered].max(axis=1)
    return _binned(confidence, decide(probabilities[answered]) == labels[answered], bins)


def risk_reliability(risk: Floats, labels: Ints, bins: int = BINS) -> list[dict[str, Any]]:
    """The same by RISK: its mean is ``confidence``, the share of malignant ones ``accuracy``."""
    return _binned(risk, MALIGNANT[labels], bins)


def risk_bins(risk: Floats, labels: Ints, bins: int = RISK_BINS) -> list[dict[str, Any]]:
    """By RISK, into bins of about as many images each; equal ones share a bin.

    Each bin's mean ``risk``, and the share that is ``malignant`` with its exact interval.
    """
    _, place, counts = np.unique(risk, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    index = np.floor(middle / max(len(risk), 1) * bins)[place]
    return [
        {"risk": float(risk[index == b].mean()), "malignant": rate(MALIGNANT[labels][index == b])}
        for b in np.unique(index)
    ]


def mean_gap(rows: list[dict[str, Any]]) -> float | None:
    """How far bins' accuracy is from their confidence, on average over images; None without any."""
    if not rows:
        return None
    gaps = [abs(row["confidence"] - row["accuracy"]) * row["images"] for row in rows]
    return float(sum(gaps) / sum(row["images"] for row in rows))


def calibration_error(probabilities: Floats, labels: Ints, bins: int = BINS) -> float | None:
    """Expected calibration error of the top-1 probability (Guo et al., arXiv 1706.04599)."""
    return mean_gap(reliability(probabilities, labels, bins))


def brier(probabilities: Floats, labels: Ints) -> float | None:
    """Mean squared distance to the truth, summed over conditions: 0 is perfect, 2 is worst."""
    answered = is_answered(probabilities)
    if not answered.any():
        return None
    truth = np.eye(len(CODES))[labels[answered]]
    return float(((probabilities[answered] - truth) ** 2).sum(axis=1).mean())


def confusion(predicted: Ints, labels: Ints) -> dict[str, Any]:
    """Counts: a row for each true condition, a column for each predicted one and for none."""
    counts = np.zeros((len(CODES), len(CODES) + 1), dtype=int)
    np.add.at(counts, (labels, predicted), 1)  # UNDECIDED, -1, is the last column
    return {"rows": list(CODES), "columns": [*CODES, "undecided"], "counts": counts.tolist()}


def _binned(confidence: Floats, correct: Bools, bins: int) -> list[dict[str, Any]]:
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "bin": int(b),
            "images": int((index == b).sum()),
            "confidence": float(confidence[index == b].mean()),
            "accuracy": float(correct[index == b].mean()),
        }
        for b in np.unique(index)
    ]


def _areas(scores: Floats, truth: Bools) -> list[float | None]:
    """AUC of each column, as the Mann-Whitney statistic."""
    ranks = rankdata(scores, axis=0)
    positives = truth.sum(axis=0)
    pairs = positives * (len(truth) - positives)
    above = (ranks * truth).sum(axis=0) - positives * (positives + 1) / 2
    return [float(u / n) if n else None for u, n in zip(above, pairs, strict=True)]
