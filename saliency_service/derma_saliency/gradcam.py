"""Grad-CAM on the last block's first normalisation.

Source: Selvaraju et al., arXiv 1610.02391; a ViT's patch tokens stand for a feature map. Written out here,
since the ``grad-cam`` package, which a test compares it with, takes seconds to load.
"""

from __future__ import annotations

import torch
from torch import Tensor

from derma_saliency.tower import Tower, graph_from, prefix, to_grid
from derma_training.network.classifier import Answers, Classifier


def gradcam(classifier: Classifier, pixels: Tensor, directions: Tensor) -> tuple[Tensor, Answers]:
    """Normalised tokens, weighted by their gradients' mean over the patches; see ``methods``."""
    visual: Tower = classifier.visual
    last, seen = visual.trunk.blocks[-1], list[Tensor]()
    handle = last.norm1.register_forward_hook(lambda _, __, out: seen.append(out))
    try:
        with graph_from(last):
            answers = classifier(pixels)
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad((answers.embedding * directions).sum(), seen)
    patches, slopes = (tensor[:, prefix(visual) :] for tensor in (seen[0].detach(), gradient))
    relevance = (patches * slopes.mean(dim=1, keepdim=True)).sum(dim=-1)
    return to_grid(visual, relevance.relu()), answers
