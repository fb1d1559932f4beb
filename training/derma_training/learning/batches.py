"""Batches that depend only on seed and step, so that a run can stop and go on anywhere.

    stream = Batches(TrainingSet(pixels, labels), phase, seed=0, device=accelerator.device)
    for pixels, labels in stream.from_step(120): ...

What happens to the images of a step is drawn for the whole step: the number of processes changes nothing,
but for mixup, whose pairs are of one process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from derma_semantics.domain.conditions import CONDITIONS
from derma_training.learning.augmentation import draw
from derma_training.learning.config import ImagePhase, Phase

# What a seed is for, so that no two draws share a stream.
ROWS, IMAGES, TEXTS, MIXTURES, DROPOUT = range(1, 6)


@dataclass(frozen=True)
class TrainingSet:
    """Images, uint8 pixels (N, 224, 224, 3) or embedded (N, D), and their condition indices, int64 (N,)."""

    inputs: Tensor
    labels: Tensor


class Batches:
    """The batches of one phase, this process's share of each.

    Args:
        rank, world: which share; a batch is cut into ``world * gradient_accumulation`` pieces.
        device: where images are changed and batches are wanted.

    Attributes:
        steps: optimiser steps an epoch.
        prior: how often each condition is drawn, fp32 (7,).
    """

    def __init__(
        self,
        data: TrainingSet,
        phase: Phase,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        pieces = world * phase.gradient_accumulation
        if phase.batch_size % pieces:
            raise ValueError(
                f"batch_size {phase.batch_size} is not divisible by {world} processes x "
                f"gradient_accumulation {phase.gradient_accumulation}"
            )
        if len(data.labels) < phase.batch_size:
            raise ValueError(
                f"{len(data.labels)} training images do not fill one batch of {phase.batch_size}"
            )
        self.data, self.phase, self.seed, self.device = data, phase, seed, device
        self.rank, self.world, self.size = rank, world, phase.batch_size // pieces
        self.steps = len(data.labels) // phase.batch_size
        self.weights, self.prior = sampling(data.labels, phase.sampling_power)

    def from_step(self, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless: inputs and labels, ``gradient_accumulation`` batches a step."""
        phase = self.phase
        while True:
            random = torch.Generator().manual_seed(mix(self.seed, ROWS, step))
            rows = torch.multinomial(self.weights, phase.batch_size, replacement=True, generator=random)
            random.manual_seed(mix(self.seed, IMAGES, step))
            changes = draw(phase.augmentation, len(rows), random) if isinstance(phase, ImagePhase) else None
            for turn in range(phase.gradient_accumulation):
                start = (turn * self.world + self.rank) * self.size
                piece = slice(start, start + self.size)
                inputs = self.data.inputs[rows[piece]].to(self.device)
                inputs = changes[piece].apply(inputs) if changes else inputs
                yield inputs, self.data.labels[rows[piece]].to(self.device)
            step += 1


def sampling(labels: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Weight of each image, float64 (N,), and the distribution of conditions that follows, fp32 (7,)."""
    counts = torch.bincount(labels, minlength=len(CONDITIONS)).double()
    share = torch.where(counts > 0, counts**power, 0)
    share /= share.sum()
    return (share / counts.clamp(min=1))[labels], share.clamp(min=1e-6).float()


def mix(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
