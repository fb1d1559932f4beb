"""Does the answer depend on how a condition is worded?

    wording.report(bundle, classifier, embeddings, truth)["worst"]     # balanced accuracy

The paraphrases of ``conditions`` are never trained on: a model whose text tower understands language
classifies with them nearly as well as with the definitions it was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from derma_semantics.domain.conditions import CODES, CONDITIONS
from derma_semantics.evaluation.metrics import Ints, balanced_accuracy
from derma_training.bundle import Bundle
from derma_training.network.classifier import Classifier
from derma_training.network.model import encode_conditions, load_merged, load_tokenizer

PARAPHRASES = {condition.code: condition.paraphrases for condition in CONDITIONS}


@torch.inference_mode()
def report(bundle: Bundle, classifier: Classifier, embeddings: Tensor, truth: Ints) -> dict[str, Any]:
    """Balanced accuracy with the bundle's definitions, and with each set of paraphrases alone.

    Args:
        embeddings: unit vectors of images, shape (N, D).
        truth: their condition indices, shape (N,).
    """
    model, tokenizer = load_merged(bundle), load_tokenizer(bundle.path)

    def score(prompts: Mapping[str, Sequence[str]]) -> float:
        text = encode_conditions(model, tokenizer, prompts)
        logits = classifier.scale * embeddings @ text.T
        return balanced_accuracy(logits.argmax(dim=1).numpy(), truth)

    sets = len(PARAPHRASES[CODES[0]])
    single = [score({code: [PARAPHRASES[code][k]] for code in CODES}) for k in range(sets)]
    return {
        "definitions": score(bundle.prompts),
        "paraphrases_together": score(PARAPHRASES),
        "paraphrase_sets": single,
        "mean": float(np.mean(single)),
        "worst": min(single),
    }
