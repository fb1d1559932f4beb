"""From similarities to probabilities: one temperature and a bias for each condition.

    scaling = fit_scaling(probabilities, labels)        # of the validation part
    scaling.apply(probabilities)                        # (N, 7)

Bias-corrected temperature scaling (Alexandari, Kundaje and Shrikumar, arXiv 1901.06852). Every
condition weighs the same, so probabilities are those of a clinic in which the seven conditions
are equally frequent. The biases give back what a rare condition loses: a network that has seen
few of its images knows them by heart, and underrates new ones.

It is fitted on other images than the thresholds are, so that their guarantees hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from derma_semantics.conditions import CODES
from derma_semantics.evaluation.metrics import Floats, Ints

# A weak pull of the biases towards none, for conditions with a handful of images.
PENALTY = 1e-3


@dataclass(frozen=True)
class Scaling:
    """Logits are divided by ``temperature``, then ``bias`` is added, in the order of ``CODES``.

    ``fitted_on`` says on which images.
    """

    temperature: float = 1.0
    bias: tuple[float, ...] = (0.0,) * len(CODES)
    fitted_on: str = "nothing"

    def apply(self, probabilities: Floats) -> Floats:
        """Scale probabilities of shape (N, 7)."""
        return np.asarray(softmax(_logits(probabilities) / self.temperature + np.array(self.bias), axis=1))


def fit_scaling(probabilities: Floats, labels: Ints, *, name: str = "drawn images") -> Scaling:
    """The scaling with the least negative log likelihood, conditions weighed equally.

    Args:
        probabilities: shape (N, 7).
        labels: condition indices, shape (N,).
        name: which images these are, for the report.
    """
    logits = _logits(probabilities)
    weights = 1 / np.bincount(labels, minlength=len(CODES)).clip(min=1)[labels]
    present = np.isin(np.arange(len(CODES)), labels)

    def loss(parameters: Floats) -> float:
        scores = log_softmax(logits * np.exp(parameters[0]) + parameters[1:], axis=1)
        likelihood = np.average(scores[np.arange(len(labels)), labels], weights=weights)
        return float(PENALTY * np.square(parameters[1:]).sum() - likelihood)

    # What no image shows cannot be judged: its bias stays 0.
    bounds = [(-3.0, 3.0), *((-5.0, 5.0) if known else (0.0, 0.0) for known in present)]
    found = minimize(loss, np.zeros(1 + len(CODES)), method="L-BFGS-B", bounds=bounds).x
    bias = (found[1:] - found[1:][present].mean()) * present
    return Scaling(float(np.exp(-found[0])), tuple(map(float, bias)), name)


def _logits(probabilities: Floats) -> Floats:
    return np.asarray(np.log(probabilities.clip(min=np.finfo(np.float32).tiny)))
