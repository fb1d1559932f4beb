"""fp16 graphs with parts that stay in fp32."""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from derma_export import half
from derma_export.half import to_fp16

KEPT = ("first", "second", "third")
EXPECTED = 20.0  # for x = 2, to fp16's last digit


def graph():
    """y = log(exp(10 x) + 10 x), where two kept nodes read one tensor. For x = 2 fp16 cannot hold the sum."""
    nodes = [
        helper.make_node("Mul", ["x", "ten"], ["product"], name="product"),
        helper.make_node("Exp", ["product"], ["large"], name="first"),
        helper.make_node("Add", ["large", "product"], ["sum"], name="second"),
        helper.make_node("Log", ["sum"], ["y"], name="third"),
    ]
    made = helper.make_graph(
        nodes,
        "kept",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor("ten", TensorProto.FLOAT, [], [10.0])],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def twice(convert):
    """The converter of ONNX Runtime 1.31: a cast for each reader, all with the same name and output."""

    def converted(*args, **kwargs):
        model = convert(*args, **kwargs)
        casts = {}
        for node in [node for node in model.graph.node if node.op_type == "Cast"]:
            known = casts.setdefault((node.input[0], node.attribute[0].i), node)
            if known is not node:
                for reader in model.graph.node:
                    for at, name in enumerate(reader.input):
                        if name == node.output[0]:
                            reader.input[at] = known.output[0]
                node.CopyFrom(known)
        assert len({node.name for node in model.graph.node}) < len(model.graph.node)
        return model

    return converted


def answer(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.float32([x])})[0][0]


def test_neighbours_that_are_kept_meet_in_fp32():
    assert answer(to_fp16(graph(), KEPT), 2.0) == EXPECTED


def test_a_tensor_is_cast_once_for_all_that_read_it(monkeypatch):
    monkeypatch.setattr(half, "convert_float_to_float16", twice(half.convert_float_to_float16))
    model = to_fp16(graph(), KEPT)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert answer(model, 2.0) == EXPECTED
