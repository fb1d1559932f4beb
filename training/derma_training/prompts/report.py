"""How well texts classify: against unseen wordings, and against trained heads.

figures = report(bundle, parts)
print(summary(figures))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from derma_training.bundle import Bundle
from derma_training.data import Example, Parts, labels, load_pixels
from derma_training.network.classifier import BATCH, Classifier
from derma_training.prompts import probe, wording


@torch.inference_mode()
def report(bundle: Bundle, parts: Parts, *, heads: bool = True) -> dict[str, Any]:
    """Balanced accuracy on the test part: definitions, paraphrases, linear and MLP head.

    Args:
        heads: train heads too, which takes the features of the whole training part.
    """
    classifier = Classifier.from_bundle(bundle)
    features, truth = _features(classifier, parts.test)
    tower: Any = classifier.visual
    embeddings = F.normalize(tower.head(features), dim=-1)
    words = wording.report(bundle, classifier, embeddings, truth)
    if not heads:
        return {"wording": words}
    known = (_features(classifier, part) for part in (parts.train, parts.validation or parts.calibration))
    sets = [probe.Part(f.double().numpy(), y) for f, y in (*known, (features, truth))]
    return {"wording": words, "head": probe.report(words["definitions"], *sets)}


def summary(figures: dict[str, Any]) -> str:
    """The figures for a terminal; all are balanced accuracies on the test part."""
    words = figures["wording"]
    sets = ", ".join(f"{score:.3f}" for score in words["paraphrase_sets"])
    lines = [
        f"definitions it was trained with        {words['definitions']:.3f}",
        f"unseen paraphrases, averaged           {words['paraphrases_together']:.3f}",
        f"one unseen paraphrase a condition      {words['mean']:.3f}  (sets: {sets})",
    ]
    if head := figures.get("head"):
        lines += [
            f"linear head on the same features       {head['linear']:.3f}",
            f"MLP head on the same features          {head['mlp']:.3f}",
            f"definitions minus the better head      {head['text_minus_best']:+.3f}",
        ]
    return "\n".join(lines)


def _features(classifier: Classifier, examples: Sequence[Example]) -> tuple[Tensor, Any]:
    """The image tower's output before its projection, fp32 (N, width), and condition indices (N,)."""
    tower: Any = classifier.visual
    bar = tqdm(load_pixels(examples).split(BATCH), desc="features", leave=False)
    return torch.cat([tower.trunk(classifier.normalise(batch)) for batch in bar]), labels(examples).numpy()
