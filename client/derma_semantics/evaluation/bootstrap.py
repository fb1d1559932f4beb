"""95 % intervals by resampling lesions, not images.

    intervals_95(probabilities, labels, lesions)["balanced_accuracy"]      # [0.67, 0.82]

Photographs of one lesion resemble each other, so ten of one lesion say less than one of ten.
Lesions are drawn with replacement within each condition, so that a rare condition never
vanishes from a draw; a lesion labelled with two conditions counts as one in each.
With one lesion of a condition nothing is known of its spread: then there is no interval.
A condition that was always recognised adds no spread either, however few images it has:
read the exact intervals of its sensitivity beside. A resample looks worse calibrated than its
source, so the interval of the calibration error leans upwards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from derma_semantics.evaluation.metrics import (
    Floats,
    Ints,
    balanced_accuracy,
    calibration_error,
    decide,
    macro_auc,
    melanoma_specificity_at,
    ranking_at_prevalence,
)

DRAWS = 1000
LEVELS = (0.025, 0.975)

Interval = list[float] | None
Stratum = tuple[Ints, Ints]


def intervals_95(
    probabilities: Floats,
    labels: Ints,
    lesions: Sequence[str],
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> dict[str, Interval]:
    """Percentile intervals of the figures of ``metrics.measure`` that sum over lesions."""
    drawn: dict[str, list[float | None]] = defaultdict(list)
    for rows in resamples(labels, lesions, seed=seed, draws=draws):
        for name, value in _figures(probabilities[rows], labels[rows]).items():
            drawn[name].append(value)
    return {name: _interval(values) for name, values in drawn.items()} or dict.fromkeys(
        _figures(probabilities, labels)
    )


def resamples(labels: Ints, lesions: Sequence[str], *, seed: int, draws: int) -> Iterator[Ints]:
    """Row indices of each draw; none where a condition has a single lesion."""
    rng = np.random.default_rng(seed)
    strata = _strata(labels, lesions)
    if any(lesion.max() == 0 for _, lesion in strata):
        return
    for _ in range(draws):
        yield np.concatenate([_draw(stratum, rng) for stratum in strata])


def _draw(stratum: Stratum, rng: np.random.Generator) -> Ints:
    rows, lesion = stratum
    number = int(lesion.max()) + 1
    times = np.bincount(rng.integers(number, size=number), minlength=number)
    return np.repeat(rows, times[lesion])


def _strata(labels: Ints, lesions: Sequence[str]) -> list[Stratum]:
    """For each condition: its rows, and the number of each row's lesion."""
    names = np.asarray(lesions)
    rows = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    return [(r, np.unique(names[r], return_inverse=True)[1]) for r in rows]


def _figures(probabilities: Floats, labels: Ints) -> dict[str, float | None]:
    predicted = decide(probabilities)
    weighed = ranking_at_prevalence(probabilities, labels)["melanoma_specificity_at_95_sensitivity"]
    return {
        "balanced_accuracy": balanced_accuracy(predicted, labels),
        "accuracy": float((predicted == labels).mean()),
        "macro_auc": macro_auc(probabilities, labels),
        "melanoma_specificity_at_95_sensitivity": melanoma_specificity_at(probabilities, labels, 0.95),
        "melanoma_specificity_at_95_sensitivity_at_prevalence": weighed,
        "expected_calibration_error": calibration_error(probabilities, labels),
    }


def _interval(values: list[float | None]) -> Interval:
    known = [value for value in values if value is not None]
    return [float(q) for q in np.quantile(known, LEVELS)] if len(known) == len(values) else None
