"""Is a classifier head needed, or does comparing with texts do as well?

    probe.report(text_score, train, validation, test)["linear"]     # balanced accuracy of a linear head

Heads are trained with cross entropy on the image tower's features of the training part,
each condition weighed alike, and measured on the same test part as the texts.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from derma_semantics.evaluation.metrics import Floats, Ints, balanced_accuracy

# Penalties to choose from by balanced accuracy on the validation part.
PENALTIES = (1.0, 10.0, 100.0, 1000.0)


class Part(NamedTuple):
    """Features of the image tower before its projection, (N, width), and condition indices, (N,)."""

    features: Floats
    labels: Ints


def report(text: float, train: Part, validation: Part, test: Part) -> dict[str, Any]:
    """Balanced accuracy of the texts, as given, beside that of both heads on the test part."""
    linear = _best([_linear(penalty) for penalty in PENALTIES], train, validation, test)
    mlp = _best([_mlp(penalty) for penalty in PENALTIES], train, validation, test)
    return {"text": text, "linear": linear, "mlp": mlp, "text_minus_best": text - max(linear, mlp)}


def _best(heads: Sequence[Any], train: Part, validation: Part, test: Part) -> float:
    """Train all, choose one on the validation part, measure it on the test part."""
    weights = compute_sample_weight("balanced", train.labels)
    for head in heads:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            head.fit(train.features, train.labels, **{f"{head.steps[-1][0]}__sample_weight": weights})
    chosen = max(heads, key=lambda head: _score(head, validation))
    return _score(chosen, test)


def _score(head: Any, part: Part) -> float:
    return balanced_accuracy(head.predict(part.features), part.labels)


def _linear(penalty: float) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=1 / penalty, max_iter=1000))


def _mlp(penalty: float) -> Any:
    head = MLPClassifier((256,), alpha=penalty, early_stopping=False, max_iter=60, random_state=0)
    return make_pipeline(StandardScaler(), head)
