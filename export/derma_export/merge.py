"""Fold a bundle's adapter into its weights, and prove that nothing moved.

classifier, moved = merged(bundle, pixels)
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.nn import functional as F

from derma_export.gate import GateFailed
from derma_serving.graphs import folded
from derma_training.bundle import Bundle
from derma_training.network.classifier import Classifier, Normalise
from derma_training.network.lora import attach_adapter
from derma_training.network.model import build_model, pixel_statistics

LIMIT = 1e-5


@torch.inference_mode()
def merged(bundle: Bundle, pixels: Tensor) -> tuple[Classifier, float]:
    """The bundle's classifier, and the largest difference of embeddings before and after the merge.

    The model is built once: what is compared is what is exported.

    Args:
        pixels: images to compare on, uint8 (N, 224, 224, 3).

    Raises:
        GateFailed: an embedding moved by more than 1e-5, or the adapter changes none.
    """
    model = build_model(bundle.path)
    if bundle.adapter is None:
        return Classifier.around(model, bundle), 0.0
    normalised = Normalise(*pixel_statistics(bundle.path))(pixels)
    before = model.encode_image(normalised, normalize=True)
    adapted = attach_adapter(model, bundle.adapter)
    apart = adapted.encode_image(normalised, normalize=True)
    if torch.equal(before, apart):
        raise GateFailed(f"the adapter of {bundle.name} changes no embedding: it was never trained")
    classifier = Classifier.around(_folded(adapted), bundle)
    together = F.normalize(classifier.visual(classifier.normalise(pixels)), dim=-1)
    difference = float((apart - together).abs().max())
    if not difference <= LIMIT:
        raise GateFailed(f"merging the adapter moved embeddings by {difference:.2e}, limit {LIMIT:.0e}")
    return classifier, difference


def _folded(adapted: Any) -> Any:
    """The model within PEFT's wrapper, its adapter folded in as ``graphs.folded`` does it everywhere."""
    for layer in adapted.modules():
        if isinstance(layer, LoraLayer):
            (name,) = layer.active_adapters
            weight = layer.get_base_layer().weight
            a, b = (half[name].weight.numpy() for half in (layer.lora_A, layer.lora_B))
            weight.data = torch.from_numpy(folded(weight.numpy(), a, b, layer.scaling[name]))
    return adapted.unload().eval()
