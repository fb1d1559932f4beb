"""Opened engines, and the distance of their answers from PyTorch's.

    contender = opened("openvino-bf16", Workshop(classifier, calibration_pixels, folder, threads=2))
    contender.run(pixels).probabilities
    fidelity([contender], in_torch(classifier), pixels)[0]["max_probability_difference"]

A difference is that of the worst image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from derma_bench.engine.graphs import Workshop
from derma_bench.engine.kinds import KINDS
from derma_bench.turns import Row
from derma_export.gate import Runner, companion_effect, in_batches
from derma_export.graph import OnnxClassifier
from derma_serving.runtime.engine import Engine
from derma_training.network.classifier import Answers, Classifier

COMPANIONS = 8


@dataclass(frozen=True)
class Contender:
    """An opened engine.

    Attributes:
        precision: of the ceiling that it is held against.
        flops: of one image, as this engine computes it.
    """

    name: str
    precision: str
    run: Runner
    flops: int


def opened(name: str, workshop: Workshop) -> Contender:
    """Open an engine of ``KINDS``.

    Raises:
        EngineUnavailable: its provider is not installed.
    """
    kind = KINDS[name]
    count = workshop.flops(exported=bool(kind.graph))
    if not kind.graph:
        return Contender(name, kind.precision, in_torch(workshop.classifier), count)
    engine = Engine(kind.provider, kind.precision, workshop.threads)
    return Contender(name, kind.precision, OnnxClassifier(workshop.graph(kind.graph), engine), count)


def in_torch(classifier: Classifier) -> Runner:
    """PyTorch, eager, on the CPU."""

    @torch.inference_mode()
    def run(pixels: Tensor) -> Answers:
        answers: Answers = classifier(pixels)
        return answers

    return run


def fidelity(contenders: Iterable[Contender], reference: Runner, pixels: Tensor) -> list[Row]:
    """Compare each engine's answers with the reference's, and with its own in other batches."""
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
