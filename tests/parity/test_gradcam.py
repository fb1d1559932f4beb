"""Our Grad-CAM against the ``grad-cam`` package's."""

import numpy as np
import torch
from pytorch_grad_cam import GradCAM

from derma_saliency.gradcam import gradcam
from derma_saliency.tower import graph_from, prefix, to_grid
from derma_semantics.imaging.preprocess import preprocess
from derma_training.bundle import Bundle
from derma_training.network.classifier import Classifier


class OwnSize(GradCAM):
    """Maps of the feature map's own size."""

    def get_target_width_height(self, input_tensor):
        return None


class Embedding(torch.nn.Module):
    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels):
        return self.classifier(pixels).embedding


def scaled(grids):
    """To [0, 1] each; the package does so up to a constant, which matters where maps are small."""
    grids = grids - grids.min(axis=(1, 2), keepdims=True)
    return grids / grids.max(axis=(1, 2), keepdims=True)


def test_same_maps(mini, jpeg):
    classifier = Classifier.from_bundle(Bundle.open(mini)).requires_grad_(False)
    visual, last = classifier.visual, classifier.visual.trunk.blocks[-1]
    pixels = torch.from_numpy(np.stack([preprocess(jpeg(seed)) for seed in range(3)]))
    directions = classifier.text[:3] - classifier.text.mean(dim=0)
    ours, _ = gradcam(classifier, pixels, directions)

    def feature_map(tokens):
        return to_grid(visual, tokens[:, prefix(visual) :]).permute(0, 3, 1, 2)

    targets = [lambda embedding, d=d: (embedding * d).sum() for d in directions]
    with graph_from(last), OwnSize(Embedding(classifier), [last.norm1], feature_map) as cam:
        theirs = cam(pixels, targets)
    assert theirs.max() > 0.9
    assert np.abs(scaled(ours.numpy()) - scaled(theirs)).max() < 1e-4
