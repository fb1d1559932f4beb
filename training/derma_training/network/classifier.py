"""Pixels to answers: the network that is measured, exported and served.

    classifier = Classifier.from_bundle(Bundle.open(folder))
    answers = classifier(pixels)          # pixels: uint8 (B, 224, 224, 3)
    answers.probabilities                 # (B, 7)

Everything after preprocessing is inside, so that PyTorch, ONNX and every
client in every language give the same answer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from derma_semantics.domain.conditions import CONDITIONS
from derma_training.bundle import Bundle, Calibration
from derma_training.bundle.limits import Quality
from derma_training.network.check import QualityCheck
from derma_training.network.model import (
    Clip,
    encode_conditions,
    load_merged,
    load_tokenizer,
    pixel_statistics,
)

BATCH = 64


class Answers(NamedTuple):
    """The network's outputs, in the order of ``contract.NETWORK.outputs``.

    Shapes for a batch of B: probabilities (B, 7) fp32, all conditions equally frequent; risk (B, 1) fp32,
    at the bundle's prevalence; triage (B, 1) int32; prediction_set (B, 7) bool;
    quality (B, 4) bool, see ``quality.REASONS``; embedding (B, D) fp32, unit length; bundle (B, 32) uint8,
    the sha256 of the bundle whose weights answered.
    """

    probabilities: Tensor
    risk: Tensor
    triage: Tensor
    prediction_set: Tensor
    quality: Tensor
    embedding: Tensor
    bundle: Tensor


class Normalise(nn.Module):
    """uint8 NHWC pixels to the NCHW floats a vision tower expects."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.permute(0, 3, 1, 2).to(self.mean.dtype) / 255 - self.mean) / self.std


class Classifier(nn.Module):
    """Image tower, text embeddings made ahead of time, calibration and triage in one module."""

    text: Tensor
    malignant: Tensor
    prior: Tensor
    thresholds: Tensor
    set_thresholds: Tensor
    digest: Tensor

    def __init__(
        self,
        visual: nn.Module,
        normalise: Normalise,
        text: Tensor,
        logit_scale: float,
        calibration: Calibration,
        digest: str,
        quality: Quality | None = None,
    ) -> None:
        super().__init__()
        self.visual = visual
        self.normalise = normalise
        self.check = QualityCheck(quality)
        self.scale = logit_scale / calibration.temperature
        thresholds = [calibration.review, calibration.urgent]
        self.register_buffer("text", text.detach().clone())
        self.register_buffer("malignant", torch.tensor([float(c.malignant) for c in CONDITIONS]))
        # Relative to equal frequencies, which so change nothing.
        frequencies = torch.tensor(calibration.frequencies)
        self.register_buffer("prior", (frequencies * len(CONDITIONS)).log())
        self.register_buffer("thresholds", torch.tensor(thresholds))
        self.register_buffer("set_thresholds", torch.tensor(calibration.set_thresholds))
        self.register_buffer("digest", torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8))

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> Classifier:
        """The bundle's classifier in eval mode, adapter merged, definitions embedded."""
        return cls.around(load_merged(bundle), bundle)

    @classmethod
    def around(cls, model: Clip, bundle: Bundle) -> Classifier:
        """The same with the bundle's merged model at hand."""
        text = encode_conditions(model, load_tokenizer(bundle.path), bundle.prompts)
        normalise = Normalise(*pixel_statistics(bundle.path))
        scale = model.logit_scale.exp().item()
        calibration, quality = bundle.calibration, bundle.quality
        return cls(model.visual, normalise, text, scale, calibration, bundle.digest, quality).eval()

    @torch.inference_mode()
    def in_batches(self, pixels: Tensor) -> Answers:
        """Answers to any number of images."""
        parts = [self(batch) for batch in tqdm(pixels.split(BATCH), desc="classifying", leave=False)]
        return Answers(*map(torch.cat, zip(*parts, strict=True)))

    def forward(self, pixels: Tensor) -> Answers:
        embedding = nn.functional.normalize(self.visual(self.normalise(pixels)), dim=-1)
        logits = self.scale * embedding @ self.text.T
        probabilities = logits.softmax(dim=-1)
        risk = ((logits + self.prior).softmax(dim=-1) * self.malignant).sum(dim=-1, keepdim=True)
        # A RISK that is not a number is no threshold's equal: it is urgent, never routine.
        reached = (risk >= self.thresholds) | risk.isnan()
        triage = reached.sum(dim=-1, keepdim=True, dtype=torch.int32)
        # The most probable condition always belongs: it can only add coverage, and no set is empty.
        top = probabilities.amax(dim=-1, keepdim=True)
        prediction_set = probabilities >= torch.minimum(self.set_thresholds, top)
        bundle = self.digest.expand(pixels.shape[0], -1)
        quality = self.check(pixels, embedding)
        return Answers(probabilities, risk, triage, prediction_set, quality, embedding, bundle)
