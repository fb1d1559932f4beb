"""Train the small sibling: full fine-tuning, then LoRA on top, both against text.

The loss is the image-to-text half of contrastive learning with one text a
condition: every image is drawn to its own condition's definition and away from
the other six (UniCL's form for labelled data, Yang et al., arXiv 2204.03610).
A condition with n images is drawn in proportion to a power of n, and the imbalance
that remains is corrected by logit adjustment (Menon et al., arXiv 2007.07314).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2
from tqdm import tqdm

from derma_semantics.conditions import CONDITIONS
from derma_semantics.contract import IMAGE_SIZE
from derma_training.classifier import Normalise
from derma_training.model import Clip, Tokenizer

MAX_LOGIT_SCALE = math.log(100)


@dataclass(frozen=True)
class Phase:
    """One stretch of training.

    Attributes:
        name: stem of the checkpoint file.
        epochs: an epoch draws as many images as the training part has.
        learning_rate: peak of a cosine schedule with linear warm-up.
        fresh: factor on the learning rate of what starts at random, not from timm: the text
            tower and the projection.
        sampling: images of a condition with n examples are drawn in proportion to n**sampling.
    """

    name: str
    epochs: int
    learning_rate: float
    sampling: float
    fresh: float = 1.0
    batch_size: int = 64
    weight_decay: float = 0.05
    warmup: float = 0.1


@dataclass(frozen=True)
class TrainingSet:
    """Decoded images, uint8 (N, 224, 224, 3), and their condition indices, int64 (N,)."""

    pixels: Tensor
    labels: Tensor


def fit(
    model: Clip,
    tokenizer: Tokenizer,
    data: TrainingSet,
    normalise: Normalise,
    phase: Phase,
    *,
    seed: int,
    checkpoints: Path,
    inputs: str = "",
) -> None:
    """Train the parameters of ``model`` that require gradients, in place.

    After each epoch the state goes to ``checkpoints/<phase>.pt``; a later call with the
    same folder, settings and inputs continues from there.

    Args:
        inputs: identifies what else the result depends on, e.g. digests of data and vocabulary.

    Raises:
        ValueError: the checkpoint belongs to a run with other settings or inputs, or there are
            too few images for one batch.
    """
    if len(data.labels) < phase.batch_size:
        raise ValueError(f"{len(data.labels)} training images do not fill one batch of {phase.batch_size}")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(_groups(model, phase), weight_decay=phase.weight_decay)
    steps = len(data.labels) // phase.batch_size
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _cosine(phase, steps))
    checkpoint = Checkpoint(
        checkpoints / f"{phase.name}.pt", f"{phase} seed {seed} {inputs}", model, optimiser, schedule
    )
    first = checkpoint.resume()
    weights, prior = _sampling(data.labels, phase.sampling)
    for epoch in range(first, phase.epochs):
        torch.manual_seed(seed + 1000 * epoch)
        model.train()
        batches = _batches(data, weights, phase.batch_size, steps)
        bar = tqdm(batches, desc=f"{phase.name} {epoch + 1}/{phase.epochs}", total=steps, unit="batch")
        for pixels, target in bar:
            loss = _loss(model, tokenizer, normalise(pixels), target, prior)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
            bar.set_postfix(loss=f"{loss.item():.3f}")
        checkpoint.save(epoch + 1)
    model.eval()


def _loss(model: Clip, tokenizer: Tokenizer, images: Tensor, target: Tensor, prior: Tensor) -> Tensor:
    """Cross entropy over similarities to one definition a condition, drawn at random."""
    texts = [c.prompts[int(torch.randint(len(c.prompts), ()))] for c in CONDITIONS]
    with torch.autocast(images.device.type, torch.bfloat16):
        image = model.encode_image(images, normalize=True)
        text = model.encode_text(tokenizer(texts).to(images.device), normalize=True)
    logits = model.logit_scale.exp() * image.float() @ text.float().T
    return F.cross_entropy(logits + prior.log(), target)


def _groups(model: Clip, phase: Phase) -> list[dict[str, Any]]:
    """The image trunk, adapters included, and everything else, each at its learning rate."""
    trunk: list[nn.Parameter] = []
    fresh: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (trunk if ".trunk." in f".{name}" else fresh).append(parameter)
    return [
        {"params": trunk, "lr": phase.learning_rate},
        {"params": fresh, "lr": phase.learning_rate * phase.fresh},
    ]


def _sampling(labels: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Weight of each image, and the distribution of conditions that follows."""
    counts = torch.bincount(labels, minlength=len(CONDITIONS)).double()
    share = counts**power
    share /= share.sum()
    return (share / counts.clamp(min=1))[labels], share.clamp(min=1e-6).float()


def _batches(data: TrainingSet, weights: Tensor, size: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    augment = _augmentation()
    for _ in range(steps):
        rows = torch.multinomial(weights, size, replacement=True)
        images = data.pixels[rows].permute(0, 3, 1, 2)
        batch = torch.stack([augment(image) for image in images])
        yield batch.permute(0, 2, 3, 1), data.labels[rows]


def _augmentation() -> v2.Transform:
    """Dermoscopy has no upright, so all flips and quarter turns are natural."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(IMAGE_SIZE, scale=(0.5, 1.0), ratio=(0.8, 1.25), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomChoice([_quarter_turns(n) for n in range(4)]),
            v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
        ]
    )


def _quarter_turns(count: int) -> v2.Transform:
    return v2.Lambda(lambda image: image.rot90(count, dims=(-2, -1)))


def _cosine(phase: Phase, steps: int) -> Callable[[int], float]:
    total = phase.epochs * steps
    warmup = max(1, int(phase.warmup * total))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    return factor


@dataclass(frozen=True)
class Checkpoint:
    """The state of one phase after an epoch, on disk."""

    path: Path
    run: str
    model: Clip
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR

    def save(self, epoch: int) -> None:
        """Write in one step, so that a kill leaves the previous state."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimiser", "schedule")}
        torch.save({"epoch": epoch, "run": self.run, **parts}, temporary)
        temporary.replace(self.path)

    def resume(self) -> int:
        """Take the state back; returns the number of finished epochs."""
        if not self.path.is_file():
            return 0
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        if state["run"] != self.run:
            raise ValueError(
                f"{self.path} belongs to another run ({state['run']}); this one is {self.run}. "
                "Remove it, or choose another folder."
            )
        for name in ("model", "optimiser", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        return int(state["epoch"])
