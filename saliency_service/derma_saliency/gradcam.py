"""Grad-CAM on the last block's first normalisation, through the ``grad-cam`` package.

Source: Selvaraju et al., arXiv 1610.02391; a ViT's patch tokens stand for a feature map.
"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_grad_cam import GradCAM
from torch import Tensor, nn

from derma_saliency.tower import Tower, graph_from, prefix, to_grid
from derma_training.classifier import Answers, Classifier


def gradcam(classifier: Classifier, pixels: Tensor, directions: Tensor) -> tuple[Tensor, Answers]:
    """Normalised tokens, weighted by their gradients' mean over the patches; see ``methods``."""
    visual: Tower = classifier.visual
    last = visual.trunk.blocks[-1]
    network = _Embedding(classifier)

    def feature_map(tokens: Tensor) -> Tensor:
        return to_grid(visual, tokens[:, prefix(visual) :]).permute(0, 3, 1, 2)

    targets = [lambda embedding, d=d: (embedding * d).sum() for d in directions]
    with graph_from(last), _OwnSize(network, [last.norm1], feature_map) as cam:
        relevance = cam(pixels, targets)
    assert network.answers is not None
    return torch.from_numpy(relevance).to(pixels.device), network.answers


class _OwnSize(GradCAM):  # type: ignore[misc]
    """Maps of the feature map's own size; enlarging is for who draws."""

    def get_target_width_height(self, input_tensor: Tensor) -> Any:
        return None


class _Embedding(nn.Module):
    """The classifier as the package wants networks: one tensor out; the other answers are kept."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.answers: Answers | None = None

    def forward(self, pixels: Tensor) -> Tensor:
        self.answers = self.classifier(pixels)
        return self.answers.embedding
