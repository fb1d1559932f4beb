"""The text side of training: every definition of every condition, ready to be projected.

    texts = Definitions(model, tokenizer, {"MEL": ["a blue-white veil", ...], ...})
    rows = texts.draw(generator)                  # one definition a condition, at random
    vectors = texts.encode(model, rows)           # unit vectors (len(rows), D)

The text transformer is frozen and runs once; its projection runs at each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from derma_training.network.model import Clip, Tokenizer


class Definitions:
    """Definitions by condition, in the order of ``prompts``."""

    def __init__(self, model: Clip, tokenizer: Tokenizer, prompts: Mapping[str, Sequence[str]]) -> None:
        ids = tokenizer([text for texts in prompts.values() for text in texts]).to(model.logit_scale.device)
        self.counts = torch.tensor([len(texts) for texts in prompts.values()])
        self.starts = self.counts.cumsum(0) - self.counts
        self._pooled = _pool(model, ids)

    def draw(self, generator: torch.Generator) -> Tensor:
        """A random definition of each condition: row numbers, int64 (conditions,)."""
        random = torch.rand(len(self.counts), generator=generator)
        return self.starts + (random * self.counts).long()

    def encode(
        self, model: Clip, rows: Tensor, *, noise: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Unit vectors, fp32 (len(rows), D), with gradients.

        Args:
            noise: length of a random vector added before the projection, as a share of the text's own.
        """
        pooled = self._pooled[rows.to(self._pooled.device)]
        if noise:
            random = torch.randn(pooled.shape, generator=generator).to(pooled.device)
            length = noise * pooled.norm(dim=-1, keepdim=True) / pooled.shape[-1] ** 0.5
            pooled = pooled + length * random
        return F.normalize(model.text.proj(pooled).float(), dim=-1)

    @torch.no_grad()
    def conditions(self, model: Clip) -> Tensor:
        """One unit vector a condition, fp32 (conditions, D): see ``model.encode_conditions``."""
        vectors = self.encode(model, torch.arange(len(self._pooled)))
        parts = vectors.split(self.counts.tolist())
        return F.normalize(torch.stack([part.mean(dim=0) for part in parts]), dim=-1)


@torch.no_grad()
def _pool(model: Clip, ids: Tensor) -> Tensor:
    """What the text transformer says before the projection, shape (N, text width)."""
    tower = model.text.eval()
    mask = (ids != tower.config.pad_token_id).long()
    pooled: Tensor = tower.pooler(tower.transformer(input_ids=ids, attention_mask=mask), mask)
    return pooled
