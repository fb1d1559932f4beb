"""How well texts classify: against unseen wordings, and against a trained head.

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

from derma_training import probe, wording
from derma_training.bundle import Bundle
from derma_training.classifier import Classifier
from derma_training.data import Example, Parts, labels, load_pixels

BATCH = 64


@torch.inference_mode()
def report(bundle: Bundle, parts: Parts) -> dict[str, Any]:
    """Balanced accuracy on the test part: definitions, paraphrases, linear and MLP head."""
    classifier = Classifier.from_bundle(bundle)
    chosen = (parts.train, parts.validation or parts.calibration, parts.test)
    sets = [_features(classifier, examples) for examples in chosen]
    truths = [labels(examples).numpy() for examples in chosen]
    tower: Any = classifier.visual
    embeddings = F.normalize(tower.head(sets[2]), dim=-1)
    words = wording.report(bundle, classifier, embeddings, truths[2])
    known = [probe.Part(s.double().numpy(), truth) for s, truth in zip(sets, truths, strict=True)]
    return {"wording": words, "head": probe.report(words["definitions"], *known)}


def summary(figures: dict[str, Any]) -> str:
    """The figures for a terminal; all are balanced accuracies on the test part."""
    words, head = figures["wording"], figures["head"]
    sets = ", ".join(f"{score:.3f}" for score in words["paraphrase_sets"])
    return "\n".join(
        [
            f"definitions it was trained with       {words['definitions']:.3f}",
            f"unseen paraphrases, averaged           {words['paraphrases_together']:.3f}",
            f"one unseen paraphrase a condition      {words['mean']:.3f}  (sets: {sets})",
            f"linear head on the same features       {head['linear']:.3f}",
            f"MLP head on the same features          {head['mlp']:.3f}",
            f"definitions minus the better head      {head['text_minus_best']:+.3f}",
        ]
    )


def _features(classifier: Classifier, examples: Sequence[Example]) -> Tensor:
    """The image tower's output before its projection, fp32 (N, width)."""
    bar = tqdm(load_pixels(examples).split(BATCH), desc="features", leave=False)
    tower: Any = classifier.visual
    return torch.cat([tower.trunk(classifier.normalise(batch)) for batch in bar])
