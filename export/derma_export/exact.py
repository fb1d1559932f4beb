"""Rewrites of a classifier that do not change its answers, but how fast or how coarsely they are computed.

    with whole_pixels(classifier), class_token_only(trunk), fused_attention(trunk):
        export_onnx(classifier, path)

Only the class token of the last block is read, so the others need neither query nor MLP
there: 4 to 11 % of the work of a ViT. Such a graph has no patch tokens of the last block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class ClassTokenBlock(nn.Module):
    """A timm ``Block`` for its first token alone: (B, N, D) to (B, 1, D)."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block
        weights, biases = block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3)
        self.query, self.key, self.value = map(_linear, weights, biases)

    def forward(self, tokens: Tensor) -> Tensor:
        block, first = self.block, tokens[:, :1]
        first = first + block.drop_path1(block.ls1(self._attention(block.norm1(tokens))))
        last: Tensor = first + block.drop_path2(block.ls2(block.mlp(block.norm2(first))))
        return last

    def _attention(self, tokens: Tensor) -> Tensor:
        """What the first token gathers from all, (B, 1, D)."""
        attn = self.block.attn
        gather = _fused if isinstance(attn, FusedAttention) else _plain
        query, keys, values = self.query(tokens[:, :1]), self.key(tokens), self.value(tokens)
        gathered: Tensor = attn.proj(gather(query, keys, values, attn.num_heads))
        return gathered


class FusedAttention(nn.Module):
    """A timm ``Attention`` as one operator of ONNX Runtime's; for export only."""

    def __init__(self, attn: Any) -> None:
        super().__init__()
        self.qkv, self.proj, self.num_heads = attn.qkv, attn.proj, attn.num_heads

    def forward(self, tokens: Tensor, **masks: object) -> Tensor:
        query, keys, values = self.qkv(tokens).chunk(3, dim=-1)
        gathered: Tensor = self.proj(_fused(query, keys, values, self.num_heads))
        return gathered


class Centred(nn.Module):
    """uint8 NHWC pixels to NCHW floats from -1 to 127/128, which bf16 and fp16 hold exactly."""

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.permute(0, 3, 1, 2).to(torch.float32) - 128) / 128


@contextmanager
def whole_pixels(classifier: Any) -> Iterator[None]:
    """Let the patches' layer do the normalising, so that it gets pixels which no precision rounds.

    Normalised ones lose their last bits in bf16. A tower that does not begin with such a layer, or
    one without bias or with a border of zeros, stays as it is.
    """
    layer = getattr(classifier.visual.trunk.patch_embed, "proj", None)
    if not isinstance(layer, nn.Conv2d) or layer.in_channels != 3 or layer.bias is None or any(layer.padding):
        yield
        return
    before, weight, bias = classifier.normalise, layer.weight, layer.bias
    std, offset = before.std.double(), (128 / 255 - before.mean.double()) / before.std.double()
    folded = weight.double() * 128 / (255 * std), bias + (weight.double() * offset).sum(dim=(1, 2, 3))
    try:
        classifier.normalise = Centred()
        layer.weight, layer.bias = (nn.Parameter(tensor.to(weight.dtype)) for tensor in folded)
        yield
    finally:
        classifier.normalise, layer.weight, layer.bias = before, weight, bias


@contextmanager
def class_token_only(trunk: Any) -> Iterator[None]:
    """Let the last block of a timm ViT compute its class token only.

    A tower whose head reads other tokens, or whose attention has parts that ``ClassTokenBlock``
    does not know, stays as it is.
    """
    last = trunk.blocks[-1]
    if not _known(trunk, last.attn):
        yield
        return
    trunk.blocks[-1] = ClassTokenBlock(last)
    try:
        yield
    finally:
        trunk.blocks[-1] = last


@contextmanager
def fused_attention(trunk: Any) -> Iterator[None]:
    """Write each attention as one ``MultiHeadAttention``, which GPUs run without storing its scores.

    Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """
    blocks = [getattr(block, "block", block) for block in trunk.blocks]
    before = [block.attn for block in blocks]
    if all(_known(trunk, attn) for attn in before):
        for block in blocks:
            block.attn = FusedAttention(block.attn)
    try:
        yield
    finally:
        for block, attn in zip(blocks, before):
            block.attn = attn


def _plain(query: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Attention, (B, Q, D) from (B, Q, D) and twice (B, N, D)."""
    query, keys, values = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, keys, values))
    scores = (query * query.shape[-1] ** -0.5 @ keys.transpose(-2, -1)).softmax(dim=-1)
    gathered: Tensor = (scores @ values).transpose(1, 2).flatten(2)
    return gathered


def _fused(query: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    gathered: Tensor = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        (query, keys, values),
        {"num_heads": heads},
        dtype=query.dtype,
        shape=query.shape,
        version=1,
    )
    return gathered


def _known(trunk: Any, attn: Any) -> bool:
    norms = (attn.q_norm, attn.k_norm, getattr(attn, "norm", nn.Identity()))
    plain = all(isinstance(norm, nn.Identity) for norm in norms) and attn.qkv.bias is not None
    return plain and trunk.global_pool == "token" and trunk.attn_pool is None


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A layer of its own, so that its weights are constants of the graph."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return layer
