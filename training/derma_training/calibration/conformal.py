"""Which conditions stay possible: conformal prediction sets with a guarantee by group.

    thresholds = set_thresholds(probabilities, labels, coverage=0.95)
    sets = prediction_sets(probabilities, thresholds)       # bool (N, 7)

Split conformal prediction with the LAC score, 1 - probability of the true condition (Sadinle,
Lei and Wasserman, arXiv 1609.00451), Mondrian by group of conditions (Vovk, Gammerman and
Shafer, Algorithmic Learning in a Random World, chapter 4): of the images of each group at
least ``coverage`` get a set that holds their condition, on average over calibration sets.
The groups are ``conditions.ConformalGroup``.
"""

from __future__ import annotations

import math

import numpy as np

from derma_semantics.domain.conditions import CODES, CONDITIONS, ConformalGroup
from derma_semantics.evaluation.metrics import Bools, Floats, Ints
from derma_training.calibration.risk_control import rounded_down

GROUPS = tuple(tuple(c.code for c in CONDITIONS if c.group is group) for group in ConformalGroup)


def set_thresholds(probabilities: Floats, labels: Ints, *, coverage: float) -> dict[str, float]:
    """By condition code, the lowest probability with which it belongs to the set.

    A group with too few examples gets 0, so that its conditions always belong.
    """
    own = probabilities[np.arange(len(labels)), labels]
    thresholds = {}
    for group in GROUPS:
        lowest = group_threshold(own[in_group(group, labels)], coverage)
        thresholds.update(dict.fromkeys(group, lowest))
    return {code: thresholds[code] for code in CODES}


def group_threshold(probabilities: Floats, coverage: float) -> float:
    """From the probabilities of the true condition of a group's images."""
    if too_few(len(probabilities), coverage):
        return 0.0
    return float(rounded_down(np.sort(probabilities))[_rank(len(probabilities), coverage) - 1])


def too_few(examples: int, coverage: float) -> bool:
    """Whether only a set that always holds the condition has that coverage."""
    return _rank(examples, coverage) == 0


def prediction_sets(probabilities: Floats, thresholds: dict[str, float]) -> Bools:
    """As the network computes them: what reaches its threshold, and the most probable."""
    lowest = np.array([thresholds[code] for code in CODES])
    sets: Bools = probabilities >= np.minimum(lowest, probabilities.max(axis=1, keepdims=True))
    return sets


def in_group(group: tuple[str, ...], labels: Ints) -> Bools:
    return np.isin(labels, [CODES.index(code) for code in group])


def _rank(examples: int, coverage: float) -> int:
    """Which of the lowest probabilities is the threshold.

    The quantile ceil((n + 1) * coverage) / n of 1 - p, counted from the other end.
    """
    return math.floor((examples + 1) * (1 - coverage) + 1e-9)
