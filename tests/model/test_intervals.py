"""Intervals by resampling lesions: how wide they are, and how often they hold the truth."""

import numpy as np
import pytest

from derma_semantics.evaluation.bootstrap import intervals_95
from tests.unit.cases import NAMES, drawn


def test_lesions_and_not_images_are_resampled():
    """Ten copies of each picture know no more than one."""
    probabilities, labels = drawn(7, 140, signal=1.0)
    lesions = [f"L{i}" for i in range(140)]
    alone = intervals_95(probabilities, labels, lesions, draws=400)
    copied = (np.repeat(probabilities, 10, axis=0), np.repeat(labels, 10))
    clustered = intervals_95(*copied, np.repeat(lesions, 10).tolist(), draws=400)
    naive = intervals_95(*copied, [f"I{i}" for i in range(1400)], draws=400)
    for name in ("balanced_accuracy", "accuracy", "macro_auc"):
        one, many, wrong = (i[name][1] - i[name][0] for i in (alone, clustered, naive))
        assert many == pytest.approx(one, rel=0.25)
        assert wrong < 0.45 * many  # a factor of the root of ten, less chance


def test_interval_covers_the_truth_about_as_often_as_it_says():
    """Balanced accuracy of a classifier that is right with probability 0.7."""
    rng = np.random.default_rng(0)
    labels = np.arange(210) % 7
    hits = 0
    for seed in range(60):
        right = rng.random(210) < 0.7
        predicted = np.where(right, labels, (labels + 1) % 7)
        low, high = intervals_95(np.eye(7)[predicted], labels, NAMES[:210], seed=seed, draws=150)["accuracy"]
        hits += low <= 0.7 <= high
    assert 52 <= hits <= 60
