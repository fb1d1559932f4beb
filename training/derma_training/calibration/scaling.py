"""From similarities to probabilities, by one temperature, and from these to RISK, by prevalence.

    scaling = fit_scaling(probabilities, labels)        # of the validation part
    scaling = replace(scaling, prevalence=prevalence_of(training_labels), prevalence_from=TRAINING)
    probabilities = scaling.apply(probabilities)        # (N, 7)
    scaling.risk(probabilities)                         # (N,)

Temperature scaling (Guo et al., arXiv 1706.04599). Every condition weighs the same, so probabilities
are those of a clinic in which the seven conditions are equally frequent. RISK weighs them by how
frequent they are (Saerens et al., see ``derma_semantics.domain.prevalence``): doubt between a melanoma and a
nevus counts for less than doubt between a melanoma and something as rare.

Both come from other images than the thresholds do, so that their guarantees hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.prevalence import at_prevalence
from derma_semantics.evaluation.metrics import MALIGNANT, Floats, Ints

# Of the logarithm of the inverse temperature: 0.05 to 20.
BOUNDS = (-3.0, 3.0)

# Where a prevalence is from, as reports say it.
TRAINING = "the bundle's training lesions"
BY_HAND = "given by hand"
EARLIER = "kept from an earlier calibration"
NOWHERE = "nothing was counted"


@dataclass(frozen=True)
class Scaling:
    """Logits are divided by ``temperature``; ``fitted_on`` says on which images it was fitted.

    ``prevalence``, in the order of ``CODES``, is for RISK alone; ``prevalence_from`` says where it is from.
    """

    temperature: float = 1.0
    fitted_on: str = "nothing"
    prevalence: tuple[float, ...] = (1 / len(CODES),) * len(CODES)
    prevalence_from: str = NOWHERE

    def apply(self, probabilities: Floats) -> Floats:
        """Scale probabilities of shape (N, 7)."""
        return np.asarray(softmax(_logits(probabilities) / self.temperature, axis=1))

    def risk(self, probabilities: Floats) -> Floats:
        """RISK, shape (N,), of probabilities that are scaled already."""
        return np.asarray(at_prevalence(probabilities, self.prevalence)[:, MALIGNANT].sum(axis=1))


def fit_scaling(probabilities: Floats, labels: Ints, *, name: str = "drawn images") -> Scaling:
    """The temperature with the least negative log likelihood, conditions weighed equally.

    Args:
        probabilities: shape (N, 7).
        labels: condition indices, shape (N,).
        name: which images these are, for the report.
    """
    logits, rows = _logits(probabilities), np.arange(len(labels))
    weights = 1 / np.bincount(labels, minlength=len(CODES)).clip(min=1)[labels]

    def loss(sharpness: float) -> float:
        likelihoods = log_softmax(logits * np.exp(sharpness), axis=1)[rows, labels]
        return -float(np.average(likelihoods, weights=weights))

    found = minimize_scalar(loss, bounds=BOUNDS, method="bounded").x
    return Scaling(float(np.exp(-found)), fitted_on=name)


def prevalence_of(labels: Ints) -> tuple[float, ...]:
    """Shares of the conditions, each counted once more than it occurs, so that none is impossible."""
    counts = np.bincount(labels, minlength=len(CODES)) + 1
    return tuple((counts / counts.sum()).tolist())


def _logits(probabilities: Floats) -> Floats:
    return np.asarray(np.log(probabilities.clip(min=np.finfo(np.float32).tiny)))
