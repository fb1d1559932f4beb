"""Batches that depend only on seed and step, so that a run can stop and go on anywhere.

    stream = Batches(TrainingSet(pixels, labels), phase, seed=0)
    for pixels, labels in stream.from_step(120): ...

Every image draws its augmentation from a seed of its own: the number of workers and
processes changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, v2

from derma_semantics.conditions import CONDITIONS
from derma_semantics.contract import IMAGE_SIZE
from derma_training.learning.config import Augmentation, Balance, Phase

Item = tuple[int, int]

# What a seed is for, so that no two draws share a stream.
ROWS, IMAGES, TEXTS, MIXTURES, DROPOUT = range(1, 6)


@dataclass(frozen=True)
class TrainingSet:
    """Decoded images, uint8 (N, 224, 224, 3), and their condition indices, int64 (N,)."""

    pixels: Tensor
    labels: Tensor


class Batches:
    """The batches of one phase, this process's share of each.

    Args:
        rank, world: which share; a batch is cut into ``world * accumulate`` pieces.
        workers: processes that decode and augment.

    Attributes:
        steps: optimiser steps an epoch.
        prior: how often each condition is drawn, fp32 (7,).
    """

    def __init__(
        self, data: TrainingSet, phase: Phase, *, seed: int, rank: int = 0, world: int = 1, workers: int = 0
    ) -> None:
        pieces = world * phase.accumulate
        if phase.batch_size % pieces:
            raise ValueError(
                f"batch_size {phase.batch_size} is not divisible by {world} processes x "
                f"accumulate {phase.accumulate}"
            )
        if len(data.labels) < phase.batch_size:
            raise ValueError(
                f"{len(data.labels)} training images do not fill one batch of {phase.batch_size}"
            )
        self.data, self.phase, self.seed, self.workers = data, phase, seed, workers
        self.rank, self.world, self.size = rank, world, phase.batch_size // pieces
        self.steps = len(data.labels) // phase.batch_size
        self.weights, self.prior = sampling(data.labels, phase.balance)

    def from_step(self, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless: NHWC uint8 pixels and labels, ``accumulate`` batches a step."""
        plan = _Plan(self, step)
        loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
            _Augmented(self.data, self.phase), batch_sampler=plan, num_workers=self.workers
        )
        yield from loader


class _Plan:
    """Which images stand in which batch, each with its seed."""

    def __init__(self, stream: Batches, first: int) -> None:
        self.stream, self.first = stream, first

    def __iter__(self) -> Iterator[list[Item]]:
        stream, step = self.stream, self.first
        while True:
            draw = torch.Generator().manual_seed(mix(stream.seed, ROWS, step))
            count = stream.phase.batch_size
            rows = torch.multinomial(stream.weights, count, replacement=True, generator=draw).tolist()
            items = [(row, mix(stream.seed, IMAGES, step, position)) for position, row in enumerate(rows)]
            for turn in range(stream.phase.accumulate):
                start = (turn * stream.world + stream.rank) * stream.size
                yield items[start : start + stream.size]
            step += 1


class _Augmented(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, data: TrainingSet, phase: Phase) -> None:
        self.data = data
        counts = torch.bincount(data.labels, minlength=len(CONDITIONS))
        self.rare = counts < phase.balance.rare
        self.common, self.heavy = augmentation(phase.augmentation), augmentation(phase.rare_augmentation)

    def __getitem__(self, item: Item) -> tuple[Tensor, Tensor]:
        row, seed = item
        label = self.data.labels[row]
        change = self.heavy if self.rare[label] else self.common
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            image = change(self.data.pixels[row].permute(2, 0, 1))
        return image.permute(1, 2, 0), label


def sampling(labels: Tensor, balance: Balance) -> tuple[Tensor, Tensor]:
    """Weight of each image, float64 (N,), and the distribution of conditions that follows, fp32 (7,)."""
    counts = torch.bincount(labels, minlength=len(CONDITIONS)).double()
    share = torch.where(counts > 0, counts**balance.sampling, 0)
    share /= share.sum()
    return (share / counts.clamp(min=1))[labels], share.clamp(min=1e-6).float()


def augmentation(settings: Augmentation) -> v2.Transform:
    """The transform of uint8 CHW images that the settings describe."""
    steps: list[v2.Transform] = []
    if settings.rotation:
        margin = IMAGE_SIZE // 4  # hides the corners of a turned square
        steps += [
            v2.Pad(margin, padding_mode="reflect"),
            v2.RandomRotation(settings.rotation, interpolation=InterpolationMode.BILINEAR),
            v2.CenterCrop(IMAGE_SIZE),
        ]
    steps.append(
        v2.RandomResizedCrop(IMAGE_SIZE, scale=(settings.crop, 1.0), ratio=(0.8, 1.25), antialias=True)
    )
    if settings.flips:
        steps += [v2.RandomHorizontalFlip(), v2.RandomChoice([_quarter_turns(n) for n in range(4)])]
    if settings.jitter or settings.hue:
        steps.append(v2.ColorJitter(settings.jitter, settings.jitter, settings.jitter, settings.hue))
    return v2.Compose(steps)


def mix(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _quarter_turns(count: int) -> v2.Transform:
    return v2.Lambda(lambda image: image.rot90(count, dims=(-2, -1)))
