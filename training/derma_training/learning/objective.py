"""From a batch to its loss: images against one text definition of each condition.

    objective = Objective(model, normalise, texts, phase, stream.prior, seed)
    objective(inputs, labels, step, turn).backward()

A phase of words is given images that ``embedded`` has embedded already, others pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from derma_training.learning.augmentation import blend
from derma_training.learning.batches import MIXTURES, TEXTS, TrainingSet, mix
from derma_training.learning.config import ImagePhase, Phase, WordsPhase
from derma_training.learning.definitions import Definitions
from derma_training.network.classifier import Normalise
from derma_training.network.model import Clip

BATCH = 64


def contrastive(image: Tensor, text: Tensor, target: Tensor, scale: Tensor, prior: Tensor) -> Tensor:
    """Cross entropy of each image over one definition a condition, with logit adjustment.

    Args:
        image: unit vectors, fp32, shape (B, D).
        text: shape (C, D).
        target: condition indices, shape (B,), or their mixture, shape (B, C).
        scale: inverse temperature.
        prior: how often each condition is drawn, shape (C,).

    Source: the image-to-text half of Yang et al., UniCL, arXiv 2204.03610; Menon et al., logit adjustment,
    arXiv 2007.07314.
    """
    return F.cross_entropy(scale * image @ text.T + prior.log(), target)


class Objective(nn.Module):
    """Batch to loss, so that one call is what ``DistributedDataParallel`` needs."""

    prior: Tensor

    def __init__(
        self,
        model: Clip,
        normalise: Normalise,
        texts: Definitions,
        phase: Phase,
        prior: Tensor,
        seed: int,
    ) -> None:
        super().__init__()
        self.model, self.normalise = model, normalise
        self.texts, self.phase, self.seed = texts, phase, seed
        self.register_buffer("prior", prior)

    def forward(self, inputs: Tensor, labels: Tensor, step: int, turn: int) -> Tensor:
        """The loss of batch ``turn`` of a step."""
        draw = torch.Generator().manual_seed(mix(self.seed, TEXTS, step))  # one text for the whole step
        rows, target = self.texts.draw(draw), labels
        if isinstance(self.phase, ImagePhase):
            seed = mix(self.seed, MIXTURES, step, turn)
            images, target = blend(self.normalise(inputs), labels, self.phase.mixup_alpha, seed)
            inputs = F.normalize(self.model.encode_image(images).float(), dim=-1)
            text = self.texts.encode(self.model, rows)
        # In fp32, as similarities are served: bf16 would move logits by tenths.
        with torch.autocast(inputs.device.type, enabled=False):
            if isinstance(self.phase, WordsPhase):
                text = self.texts.encode(self.model, rows, noise=self.phase.text_noise, generator=draw)
            return contrastive(inputs, text, target, self.model.logit_scale.exp(), self.prior)


@torch.no_grad()
def embedded(model: Clip, normalise: Normalise, data: TrainingSet, label: str) -> TrainingSet:
    """Unit vectors, fp32 (N, D), in the place of untouched images."""
    device = model.logit_scale.device
    bar = tqdm(data.inputs.split(BATCH), desc=f"embedding {label} images", unit="batch", leave=False)
    vectors = [model.encode_image(normalise(part.to(device)), normalize=True) for part in bar]
    return TrainingSet(torch.cat(vectors), data.labels)
