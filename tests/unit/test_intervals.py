"""Intervals by resampling lesions: what they depend on, and how often they hold the truth."""

import numpy as np

from derma_semantics.evaluation.bootstrap import intervals_95, resamples
from derma_semantics.evaluation.metrics import measure
from tests.unit.cases import NAMES, drawn


def test_rare_conditions_never_vanish_from_a_draw():
    labels = np.array([0] * 3 + [1] * 200)
    lesions = [f"L{i // 2}" for i in range(203)]
    for rows in resamples(labels, ["a", "a", "b", *lesions[3:]], seed=0, draws=50):
        assert set(labels[rows]) == {0, 1}
        drawn_rare = rows[rows < 2]
        assert (drawn_rare == 0).sum() == (drawn_rare == 1).sum()  # a lesion's images stay together


def test_intervals_are_seeded_and_honest_about_single_lesions():
    probabilities, labels = drawn(0, 70)
    first, again, other = (
        intervals_95(probabilities, labels, NAMES[:70], seed=seed, draws=50) for seed in (0, 0, 1)
    )
    assert first == again != other
    low, high = first["balanced_accuracy"]
    assert low < measure(probabilities, labels)["balanced_accuracy"]["value"] < high
    single = intervals_95(probabilities, labels, ["one"] * 70, draws=50)
    assert set(single) == set(first) and set(single.values()) == {None}
