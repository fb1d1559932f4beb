"""fp16 graphs, with parts that stay in fp32.

converted = to_fp16(model, kept=["node_MatMul_172"])
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto
from onnxruntime.transformers.float16 import convert_float_to_float16


def to_fp16(model: onnx.ModelProto, kept: Sequence[str]) -> onnx.ModelProto:
    """ONNX Runtime's converter: fp16 but for the nodes ``kept``; inputs and outputs keep their types."""
    converted: onnx.ModelProto = convert_float_to_float16(
        model, keep_io_types=True, node_block_list=list(kept)
    )
    _drop_repeats(converted.graph)
    _undo_round_trips(converted.graph)
    return converted


def _drop_repeats(graph: onnx.GraphProto) -> None:
    """Keep one of each cast.

    ONNX Runtime 1.31 casts a tensor once for each kept node that reads it, all to the same name.
    """
    made: set[str] = set()
    repeats = []
    for place, node in enumerate(graph.node):
        if node.op_type == "Cast" and node.output[0] in made:
            repeats.append(place)
        made.update(node.output)
    for place in reversed(repeats):
        del graph.node[place]


def _undo_round_trips(graph: onnx.GraphProto) -> None:
    """Let neighbours in fp32 meet in fp32.

    The converter casts the outputs of each kept node to fp16 and the inputs of the next one back,
    which would lose what is too large for fp16.
    """
    halved = {node.output[0]: node.input[0] for node in graph.node if _casts(node, TensorProto.FLOAT16)}
    exact = {
        node.output[0]: halved[node.input[0]]
        for node in graph.node
        if _casts(node, TensorProto.FLOAT) and node.input[0] in halved
    }
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = exact.get(name, name)


def _casts(node: onnx.NodeProto, target: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == target for a in node.attribute)
