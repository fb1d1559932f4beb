"""Thresholds whose sensitivity or specificity holds for new images, at a stated confidence.

    threshold = highest_threshold(risk, labels == MELANOMA, sensitivity=0.95, confidence=0.9)
    if threshold is None:
        ...     # too few melanomas: no threshold can be vouched for

Learn then Test (Angelopoulos et al., arXiv 2110.01052) by fixed-sequence testing: thresholds
are tested from the safest on, each with the full error budget, until one fails. Because the
error only grows along the sequence this is also Bates et al., arXiv 2101.02703, and two error
rates controlled on their own hold jointly: the first threshold that violates either of them
must pass a test of level 1 - confidence.

MAPIE runs the test. Its p-value for yes-no errors, the smaller of Hoeffding's and Bentkus', is
the exact binomial one (Clopper-Pearson). Its default, Bonferroni-Holm, splits the budget among
the thresholds: with 49 melanomas none would pass at 0.95. Its ready-made ``recall`` computes
misses as 1 - hits/n, which floating point rounds up to one too many in a third of all cases;
misses/n, as here, is rounded up in one of thirty. Either errs to the safe side.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from mapie.risk_control import BinaryClassificationController, BinaryRisk, false_positive_rate

from derma_semantics.domain.numbers import DIGITS
from derma_semantics.evaluation.metrics import Bools, Floats, Ints

# Thresholds have four significant digits, so the sequence of tests does not depend on the data. They
# keep a distance from every image that they must hold, so that no engine's fp32 moves it across: a share
# of the value, because a softmax makes of a logit's error a relative one (1.5e-5 at most between PyTorch,
# ONNX Runtime and OpenVINO on 300 photographs).
LOWEST = 1e-15  # above 0
_MARGIN = 1e-4

_MISSES = BinaryRisk(
    risk_occurrence=lambda truth, flagged: flagged == 0,
    risk_condition=lambda truth, flagged: truth == 1,
    higher_is_better=False,
)


def highest_threshold(
    scores: Floats, positive: Bools, *, sensitivity: float, confidence: float
) -> float | None:
    """The highest threshold at which ``scores >= threshold`` finds that share of all positives.

    None where there are fewer positives than ``fewest_examples``.
    """
    if positive.sum() < fewest_examples(sensitivity, confidence):
        return None
    grid = np.unique(rounded_down(scores[positive]))
    return max(_controlled(_MISSES, scores, positive, grid, sensitivity, confidence), default=None)


def lowest_threshold(
    scores: Floats, positive: Bools, *, specificity: float, confidence: float
) -> float | None:
    """The lowest threshold at which ``scores < threshold`` for that share of all negatives.

    None where there are fewer negatives than ``fewest_examples``.
    """
    if (~positive).sum() < fewest_examples(specificity, confidence):
        return None
    grid = np.unique(rounded_up(scores[~positive]))
    return min(
        _controlled(false_positive_rate, scores, positive, grid, specificity, confidence), default=None
    )


def fewest_examples(share: float, confidence: float) -> int:
    """With fewer examples not even one without an error proves that share."""
    return math.ceil(math.log(1 - confidence) / math.log(share))


def rounded_down(values: Floats) -> Floats:
    """To four significant digits in [0, 1], below each value by more than fp32 errs; 0 below ``LOWEST``."""
    lower = values * (1 - _MARGIN)
    steps = _steps(lower)
    return np.where(lower < LOWEST, 0.0, (np.floor(lower * steps) / steps).clip(0, 1))


def rounded_up(values: Floats) -> Floats:
    """To four significant digits in [``LOWEST``, 1], above each value below 1 by more than fp32 errs."""
    higher = np.maximum(values * (1 + _MARGIN), LOWEST)
    steps = _steps(higher)
    return np.asarray((np.ceil(higher * steps) / steps).clip(0, 1))


def _steps(values: Floats) -> Ints:
    """How many units of each value's last digit make 1; whole numbers, for floats would not be exact."""
    exponents = np.floor(np.log10(values.clip(LOWEST, 1))).astype(np.int64)
    return np.asarray(10 ** (DIGITS - 1 - exponents))


def _controlled(
    risk: BinaryRisk, scores: Floats, positive: Bools, grid: Floats, share: float, confidence: float
) -> list[float]:
    """The thresholds of ``grid`` that pass.

    It holds only thresholds at which a count of errors changes: the others of four significant
    digits would pass or fail with their neighbour.
    """
    controller = BinaryClassificationController(
        predict_function=lambda given: np.column_stack([1 - given, given]),
        risk=risk,
        target_level=1 - share,
        confidence_level=confidence,
        best_predict_param_choice=risk,
        list_predict_params=grid,
        fwer_method="fixed_sequence",
    )
    with warnings.catch_warnings():  # that all or none pass is an answer, not a mistake
        warnings.simplefilter("ignore", UserWarning)
        controller.calibrate(scores, positive)
    return [float(threshold) for threshold in controller.valid_predict_params]
