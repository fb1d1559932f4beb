"""Made-up cases for evaluation: their names, conditions and probabilities."""

import numpy as np

from derma_semantics.evaluation import metrics
from derma_semantics.evaluation.metrics import UNDECIDED
from derma_semantics.evaluation.truth import Case

NAMES = tuple(f"ISIC_{number:07d}" for number in range(2000))


def drawn(seed, images=280, *, signal=1.5, ties=0.0):
    """Probabilities and labels; every condition occurs. A share of the rows has two maxima."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 7
    logits = rng.normal(0, 1, (images, 7))
    logits[np.arange(images), labels] += signal
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if ties:
        probabilities = np.round(probabilities * 8) / 8  # coarse values tie within rows and columns
        assert (metrics.decide(probabilities) == UNDECIDED).mean() > ties
    return probabilities, labels


def cases_of(labels, lesions=None, **about):
    lesions = lesions or NAMES
    return [
        Case(NAMES[i], int(label), lesions[i], **{key: values[i] for key, values in about.items()})
        for i, label in enumerate(labels)
    ]
