"""The text side of training: every definition of every condition, ready to be encoded.

    texts = Definitions(model, tokenizer, {"MEL": ["a blue-white veil", ...], ...})
    rows = texts.draw(labels, generator)          # one definition an image, at random
    vectors = texts.encode(model, rows)           # unit vectors (len(rows), D)

A frozen text transformer runs once; only its projection runs at each step.
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
        device = model.logit_scale.device
        self.ids = tokenizer([text for texts in prompts.values() for text in texts]).to(device)
        self.counts = torch.tensor([len(texts) for texts in prompts.values()])
        self.starts = self.counts.cumsum(0) - self.counts
        frozen = not any(p.requires_grad for p in model.text.transformer.parameters())
        self._pooled = _pool(model, self.ids) if frozen else None

    def draw(self, labels: Tensor, generator: torch.Generator, *, rank: int = 0, world: int = 1) -> Tensor:
        """A random definition of each label's condition: row numbers, int64 (N,).

        Args:
            rank, world: whose labels these are; every process draws for all and keeps its own.
        """
        labels = labels.cpu()
        random = torch.rand(world, len(labels), generator=generator)[rank]
        return self.starts[labels] + (random * self.counts[labels]).long()

    def encode(
        self, model: Clip, rows: Tensor, *, noise: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Unit vectors, fp32 (len(rows), D), with gradients.

        Args:
            noise: length of a random vector that is added before the projection, as a share of the text's
                own; only where the text transformer is frozen.
        """
        rows = rows.to(self.ids.device)
        if self._pooled is None:
            vectors = model.encode_text(self.ids[rows])
        else:
            pooled = self._pooled[rows]
            if noise:
                random = torch.randn(pooled.shape, generator=generator).to(pooled.device)
                length = noise * pooled.norm(dim=-1, keepdim=True) / pooled.shape[-1] ** 0.5
                pooled = pooled + length * random
            vectors = model.text.proj(pooled)
        return F.normalize(vectors.float(), dim=-1)

    @torch.no_grad()
    def conditions(self, model: Clip) -> Tensor:
        """One unit vector a condition, fp32 (conditions, D): see ``model.encode_conditions``."""
        vectors = self.encode(model, torch.arange(len(self.ids)))
        parts = vectors.split(self.counts.tolist())
        return F.normalize(torch.stack([part.mean(dim=0) for part in parts]), dim=-1)


@torch.no_grad()
def _pool(model: Clip, ids: Tensor) -> Tensor:
    """What the text transformer says before the projection, shape (N, text width)."""
    tower = model.text.eval()
    mask = (ids != tower.config.pad_token_id).long()
    pooled: Tensor = tower.pooler(tower.transformer(input_ids=ids, attention_mask=mask), mask)
    return pooled
