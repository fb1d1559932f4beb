"""Count a graph's fused operators.

    count(onnx.load("model.onnx"))     # {"Attention": 12, "LayerNormalization": 25, "Gelu": 12}

Attention, LayerNorm and GELU written as chains of small operators cost a pass over memory for
each; a graph that loses its fusions is slow without being wrong, so nothing else would notice.
"""

from __future__ import annotations

from collections import Counter

import onnx

FUSED: dict[str, frozenset[str]] = {
    "Attention": frozenset(
        {"Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedMultiHeadAttention", "QAttention"}
    ),
    "LayerNormalization": frozenset(
        {"LayerNormalization", "SkipLayerNormalization", "EmbedLayerNormalization"}
    ),
    "Gelu": frozenset({"Gelu", "BiasGelu", "FastGelu", "QuickGelu"}),
}


def count(model: onnx.ModelProto) -> dict[str, int]:
    """Fused nodes of a model, by kind."""
    operators = Counter(node.op_type for node in model.graph.node)
    return {kind: sum(operators[name] for name in names) for kind, names in FUSED.items()}
