"""Saliency methods: one function each, in the table ``METHODS``.

    relevance, answers = METHODS["attention"].relevance(classifier, pixels, directions)
    relevance                           # (B, 14, 14), fp32, >= 0: rows and columns of patches

Every method explains the score: the cosine similarity of image and text minus the mean similarity
of other texts, which is the unit embedding times one vector, the ``direction`` (B, D). Pixels are
uint8 (B, 224, 224, 3). All take one forward pass, which also gives the answers, and one backward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from derma_saliency.gradcam import gradcam
from derma_saliency.tower import head, prefix, recorded, to_grid
from derma_training.network.classifier import Answers, Classifier

Relevance: TypeAlias = Callable[[Classifier, Tensor, Tensor], tuple[Tensor, Answers]]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to compute relevance; ``label`` is what a person chooses by."""

    name: str
    label: str
    relevance: Relevance


def attention(
    classifier: Classifier, pixels: Tensor, directions: Tensor, first: int = -3
) -> tuple[Tensor, Answers]:
    """Attention times its positive gradient, passed on from block to block up to the class token.

    Source: Chefer et al., arXiv 2103.15679, equations 5 and 6; from block ``first`` on.
    """
    visual = classifier.visual
    with recorded(visual, first) as blocks:
        answers = classifier(pixels)
    maps = [block.attention for block in blocks]
    gradients = torch.autograd.grad((answers.embedding * directions).sum(), maps)
    tokens = maps[0].shape[-1]
    passed = torch.eye(tokens, device=pixels.device).expand(len(pixels), tokens, tokens)
    for weights, gradient in zip(maps, gradients, strict=True):
        passed = passed + (weights.detach() * gradient).relu().mean(dim=1) @ passed
    return to_grid(visual, passed[:, 0, prefix(visual) :]), answers


def legrad(
    classifier: Classifier, pixels: Tensor, directions: Tensor, first: int = -4
) -> tuple[Tensor, Answers]:
    """Positive gradient of each block's own score with respect to its attention, summed over blocks.

    Source: Bousselham et al., LeGrad, arXiv 2404.03214, section 3.2; from block ``first`` on.
    """
    visual = classifier.visual
    with recorded(visual, first) as blocks:
        answers = classifier(pixels)
    total = torch.zeros((), device=pixels.device)
    for block in blocks:
        own = (normalize(head(visual, block.tokens), dim=-1) * directions).sum()
        (gradient,) = torch.autograd.grad(own, block.attention, retain_graph=True)
        total = total + gradient.relu().mean(dim=(1, 2))
    return to_grid(visual, total[:, prefix(visual) :]), answers


def grad_eclip(
    classifier: Classifier, pixels: Tensor, directions: Tensor, first: int = -4
) -> tuple[Tensor, Answers]:
    """Values, weighted by the gradient of the class token's channels and by loosened attention.

    Source: Zhao et al., Grad-ECLIP, arXiv 2502.18816; summed over the blocks from ``first`` on.
    """
    visual, start = classifier.visual, prefix(classifier.visual)
    with recorded(visual, first) as blocks:
        answers = classifier(pixels)
    gradients = torch.autograd.grad((answers.embedding * directions).sum(), [block.mixed for block in blocks])
    total = torch.zeros((), device=pixels.device)
    for block, gradient in zip(blocks, gradients, strict=True):
        queries, keys, values = block.qkv.detach().chunk(3, dim=-1)
        loosened = cosine_similarity(queries[:, :1], keys[:, start:], dim=-1)
        low, high = loosened.amin(dim=1, keepdim=True), loosened.amax(dim=1, keepdim=True)
        spread = (high - low).clamp_min(torch.finfo(high.dtype).tiny)
        total = total + (gradient[:, :1] * values[:, start:]).sum(dim=-1) * (loosened - low) / spread
    return to_grid(visual, total.relu()), answers


# The first is the default.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(name="attention", label="Attention × gradient (Chefer)", relevance=attention),
        Method(name="legrad", label="LeGrad", relevance=legrad),
        Method(name="grad-cam", label="Grad-CAM", relevance=gradcam),
        Method(name="grad-eclip", label="Grad-ECLIP", relevance=grad_eclip),
    )
}
DEFAULT = next(iter(METHODS))
