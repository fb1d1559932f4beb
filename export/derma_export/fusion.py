"""How much of a graph ONNX Runtime runs as fused operators.

    fused(Path("model.onnx"))     # {"Attention": 0, "LayerNormalization": 25, "Gelu": 12}

Attention, LayerNorm and GELU written as chains of small operators cost a pass over memory for
each; a graph that loses its fusions is slow without being wrong, so nothing else would notice.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime

FUSED: dict[str, frozenset[str]] = {
    "Attention": frozenset(
        {"Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedMultiHeadAttention", "QAttention"}
    ),
    "LayerNormalization": frozenset(
        {"LayerNormalization", "SkipLayerNormalization", "EmbedLayerNormalization"}
    ),
    "Gelu": frozenset({"Gelu", "BiasGelu", "FastGelu", "QuickGelu"}),
}


def fused(graph: Path) -> dict[str, int]:
    """Fused nodes of a graph file after ONNX Runtime's own fusions."""
    return count(optimised(graph))


def count(model: onnx.ModelProto) -> dict[str, int]:
    """Fused nodes of a model as it is, by kind."""
    operators = Counter(node.op_type for node in model.graph.node)
    return {kind: sum(operators[name] for name in names) for kind, names in FUSED.items()}


def optimised(graph: Path) -> onnx.ModelProto:
    """The model that ONNX Runtime makes of a graph file, before choices that depend on a processor."""
    with tempfile.TemporaryDirectory() as scratch:
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        settings.optimized_model_filepath = str(Path(scratch) / "optimised.onnx")
        onnxruntime.InferenceSession(str(graph), settings, providers=["CPUExecutionProvider"])
        return onnx.load(settings.optimized_model_filepath)
