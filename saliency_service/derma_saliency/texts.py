"""Texts to directions, whose product with an image's embedding is the score.

texts = Texts(model, tokenizer, conditions)     # conditions: (7, D), unit vectors
texts.direction(condition="MEL")                # (D,): its definitions minus the other six's mean
texts.direction(prompt="signs of melanoma")     # (D,): the text minus the mean of all seven
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import torch
from torch import Tensor

from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.errors import InvalidRequest
from derma_semantics.saliency import MAX_PROMPT
from derma_training.network.model import Clip, Tokenizer

CACHED = 1024


class Texts:
    """Embeds texts; the embeddings of the last 1024 prompts are kept."""

    def __init__(self, model: Clip, tokenizer: Tokenizer, conditions: Tensor) -> None:
        self.conditions = conditions
        self._model = model
        self._tokenizer = tokenizer
        self._embedded = lru_cache(CACHED)(self._embed)

    def to(self, device: str | torch.device) -> None:
        self._model.to(device)
        self.conditions = self.conditions.to(device)
        self._embedded.cache_clear()

    def direction(self, *, prompt: str | None = None, condition: str | None = None) -> Tensor:
        """The vector whose product with an image's unit embedding is the score, fp32 (D,).

        Raises:
            InvalidRequest: neither or both are given, or what is given is refused.
        """
        if prompt is not None:
            return self._embedded(prompt) - self.conditions.mean(dim=0)
        place = CODES.index(str(condition))
        others = [i for i in range(len(CODES)) if i != place]
        return self.conditions[place] - self.conditions[others].mean(dim=0)

    # Not inference_mode, whose tensors cannot take part in a later backward pass.
    @torch.no_grad()
    def _embed(self, prompt: str) -> Tensor:
        tokens = self._tokenizer([prompt]).to(self.conditions.device)
        vector: Tensor = self._model.encode_text(tokens, normalize=True)[0]
        return vector


def check_text(prompt: str | None, condition: str | None) -> None:
    """Refuse an invalid prompt or condition.

    Raises:
        InvalidRequest: neither or both are given, an unknown condition, or a prompt that is empty,
            longer than 300 characters or holds control characters.
    """
    if (prompt is None) == (condition is None):
        raise InvalidRequest("give either a prompt or a condition")
    if condition is not None and condition not in CODES:
        raise InvalidRequest(f"unknown condition: expected one of {', '.join(CODES)}")
    if prompt is None:
        return
    if not prompt.strip():
        raise InvalidRequest("the prompt is empty")
    if len(prompt) > MAX_PROMPT:
        raise InvalidRequest(f"the prompt has {len(prompt)} characters; the limit is {MAX_PROMPT}")
    if any(unicodedata.category(character).startswith("C") for character in prompt):
        raise InvalidRequest("the prompt holds control characters")
