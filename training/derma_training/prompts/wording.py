"""Does the answer depend on how a condition is worded?

    wording.report(bundle, classifier, embeddings, truth)["worst"]     # balanced accuracy

The paraphrases are never trained on: a model whose text tower understands language
classifies with them nearly as well as with the definitions it was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from derma_semantics.domain.conditions import CODES
from derma_semantics.evaluation.metrics import Ints, balanced_accuracy
from derma_training.bundle import Bundle
from derma_training.network.classifier import Classifier
from derma_training.network.model import encode_conditions, load_merged, load_tokenizer

# Set k is the k-th sentence of every condition: names, plain words, dermoscopy, pathology, a question.
PARAPHRASES: dict[str, tuple[str, ...]] = {
    "MEL": (
        "melanoma",
        "a dangerous dark spot with ragged edges and many colors, a deadly skin cancer",
        "dermoscopy reveals an irregular network, radial streaming, pseudopods and a bluish-white haze",
        "cancerous proliferation of pigment cells invading the skin",
        "does this lesion look like a malignant melanoma?",
    ),
    "NV": (
        "melanocytic nevus",
        "an ordinary harmless mole, evenly brown and round",
        "dermoscopy reveals a uniform reticular pattern that thins out towards the periphery",
        "benign proliferation of pigment cells in nests",
        "does this lesion look like a normal mole?",
    ),
    "BCC": (
        "basal cell carcinoma",
        "a pearly pink bump with visible blood vessels, a slowly growing skin cancer",
        "dermoscopy reveals tree-like vessels, bluish ovoid clusters and maple-leaf-like structures",
        "cancerous proliferation of basal keratinocytes in nests with peripheral palisading",
        "does this lesion look like a basal cell cancer?",
    ),
    "AKIEC": (
        "actinic keratosis or intraepithelial carcinoma",
        "a dry, crusty, sandpaper-like spot caused by years of sun, not yet cancer",
        "dermoscopy reveals a reddish network around hair follicles, scale and coiled vessels",
        "atypical keratinocytes confined to the epidermis of sun-exposed skin",
        "does this lesion look like a solar keratosis or Bowen disease?",
    ),
    "BKL": (
        "benign keratosis-like lesion",
        "a waxy wart-like growth of older people that seems glued on the skin, harmless",
        "dermoscopy reveals white cysts, dark plugged openings, and a brain-like surface",
        "benign thickening of the epidermis with horn cysts, or a sun-induced lentigo",
        "does this lesion look like a seborrhoeic keratosis or an age spot?",
    ),
    "DF": (
        "dermatofibroma",
        "a small hard brownish bump, often on the leg, that sinks in when squeezed, harmless",
        "dermoscopy reveals a whitish central area surrounded by a faint pigmented network",
        "benign proliferation of fibroblasts and histiocytes in the dermis",
        "does this lesion look like a fibrous histiocytoma?",
    ),
    "VASC": (
        "vascular lesion of the skin",
        "a cherry-red or purple spot made of blood vessels, harmless",
        "dermoscopy reveals sharply demarcated reddish or violet lagoons without pigment structures",
        "benign proliferation of dilated blood vessels, or bleeding into the skin",
        "does this lesion look like a haemangioma or a blood spot?",
    ),
}


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
