"""Contrastive losses between images and the text definitions of their conditions.

    loss = definitions(image, text, labels, scale, prior)     # text: one row a condition
    loss = distillation(image, text, scale, answers, softness)        # answers: logits of teachers
    loss = unicl(image, text, labels, scale)                  # text: one row an image
    loss = clip(image, text, scale)

Features are unit vectors, fp32. ``definitions`` is the image-to-text half of UniCL
with one text a condition; ``clip`` is open_clip's own ``ClipLoss``. The last two see
the batches of all processes.
"""

from __future__ import annotations

import torch
from open_clip.loss import ClipLoss, gather_features
from torch import Tensor, distributed
from torch.nn import functional as F


def definitions(image: Tensor, text: Tensor, target: Tensor, scale: Tensor, prior: Tensor) -> Tensor:
    """Cross entropy of each image over one definition a condition, with logit adjustment.

    Args:
        image: shape (B, D).
        text: shape (C, D).
        target: condition indices, shape (B,), or their mixture, shape (B, C).
        scale: inverse temperature.
        prior: how often each condition is drawn, shape (C,).

    Source: Yang et al., UniCL, arXiv 2204.03610; Menon et al., logit adjustment, arXiv 2007.07314.
    """
    return F.cross_entropy(scale * image @ text.T + prior.log(), target)


def distillation(image: Tensor, text: Tensor, scale: Tensor, answers: Tensor, softness: float) -> Tensor:
    """Divergence of each image's conditions from those that teachers see in it.

    Args:
        image: shape (B, D).
        text: shape (C, D).
        answers: the teachers' logits, their mean, shape (B, C).
        softness: temperature on both sides; its square keeps gradients as large as those of labels.

    Source: Hinton et al., arXiv 1503.02531; the same changes to an image for both sides: Beyer et al.,
    arXiv 2106.05237.
    """
    given = F.log_softmax(scale * image @ text.T / softness, dim=-1)
    wanted = F.log_softmax(answers / softness, dim=-1)
    return softness**2 * F.kl_div(given, wanted, reduction="batchmean", log_target=True)


def unicl(image: Tensor, text: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE in which all pairs of one condition are positives, both directions averaged.

    The batch's own composition stands in the denominator, so imbalance is adjusted for as in
    ``definitions``: n texts of a condition weigh as one with log n added to its logit.

    Args:
        image, text: shape (B, D); row i of ``text`` defines the condition of image i.
        labels: condition indices, shape (B,).

    Source: Yang et al., UniCL, arXiv 2204.03610, equation 3.
    """
    rank, world = _place()
    if world > 1:
        image, text = gather_features(image, text, gather_with_grad=True, rank=rank, world_size=world)
        labels = _gather(labels, world)
    positive = (labels[:, None] == labels[None, :]).float()
    target = positive / positive.sum(dim=1, keepdim=True)
    logits = scale * image @ text.T
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def clip(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE in which every other pair is a negative, also of the same condition.

    Source: Radford et al., CLIP, arXiv 2103.00020, figure 3.
    """
    rank, world = _place()
    loss: Tensor = ClipLoss(gather_with_grad=True, rank=rank, world_size=world)(image, text, scale)
    return loss


def _place() -> tuple[int, int]:
    """This process's rank and the number of processes."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def _gather(labels: Tensor, world: int) -> Tensor:
    parts = [torch.empty_like(labels) for _ in range(world)]
    distributed.all_gather(parts, labels)
    return torch.cat(parts)
