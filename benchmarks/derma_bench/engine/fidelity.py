"""How far an engine's answers are from PyTorch's, and from its own in other company.

    fidelity(contenders, in_torch(classifier), pixels)[0]["max_probability_difference"]

A difference is that of the worst image.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from derma_bench.engine.kinds import Contender
from derma_export.gate import Runner, companion_effect, in_batches
from derma_training.network.classifier import Answers

COMPANIONS = 8

Row = dict[str, Any]


def fidelity(contenders: Iterable[Contender], reference: Runner, pixels: Tensor) -> list[Row]:
    """How far each engine's answers are from the reference's, and from its own in other company."""
    truth = in_batches(reference, pixels)
    return [
        {"engine": one.name, "images": len(pixels)}
        | differences(truth, in_batches(one.run, pixels))
        | {"companion_difference": companions(one.run, pixels)}
        for one in contenders
    ]


def differences(truth: Answers, answers: Answers) -> Row:
    """Of embeddings, probabilities and the most probable condition."""
    vectors = [F.normalize(a.embedding.double(), dim=-1) for a in (truth, answers)]
    distance = 1 - (vectors[0] * vectors[1]).sum(dim=-1)
    same = truth.probabilities.argmax(dim=-1) == answers.probabilities.argmax(dim=-1)
    return {
        "min_cosine": 1 - distance.max().item(),
        "mean_cosine": 1 - distance.mean().item(),
        # The same again, because four digits of a cosine say too little.
        "max_cosine_distance": distance.max().item(),
        "max_probability_difference": (truth.probabilities - answers.probabilities).abs().max().item(),
        "top1_agreement": same.double().mean().item(),
    }


def companions(run: Runner, pixels: Tensor, batch: int = COMPANIONS) -> float:
    """Largest change of any image's probabilities between alone and in a batch of others."""
    return max(companion_effect(run, part, batch) for part in pixels.split(batch))
