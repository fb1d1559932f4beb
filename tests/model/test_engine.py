"""Where the operators of a graph run, and which of them are fused."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from derma_export.fusion import count
from derma_serving.runtime.engine import (
    Engine,
    EngineUnavailable,
    open_session,
    placement,
    require_no_fallback,
)

WIDTH = 8


def weight(name, *shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def save(path, nodes, weights=(), domains=()):
    """A model that turns x, any number of rows by ``WIDTH``, into y."""
    shape = ["batch", WIDTH]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        weights,
    )
    opsets = [helper.make_opsetid(domain, 20 if not domain else 1) for domain in ("", *domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.fixture
def dense(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["y"])]
    return save(tmp_path / "dense.onnx", nodes, [weight("w", WIDTH, WIDTH)])


@pytest.fixture
def half_supported(tmp_path):
    """A GELU that only ONNX Runtime's own kernels have, behind a product that all have."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("FastGelu", ["h"], ["y"], domain="com.microsoft"),
    ]
    return save(tmp_path / "half.onnx", nodes, [weight("w", WIDTH, WIDTH)], ["com.microsoft"])


def test_placement_on_the_cpu(dense):
    session = open_session(dense, Engine("cpu"))
    assert placement(session) == {"CPUExecutionProvider": {"MatMul": 1, "Softmax": 1}}
    require_no_fallback(session, "cpu")


def test_a_session_on_the_cpu_is_no_gpu_session(dense):
    session = open_session(dense, Engine("cpu"))
    with pytest.raises(EngineUnavailable, match="CUDA.* leaves to the CPU: 1 MatMul, 1 Softmax"):
        require_no_fallback(session, "cuda")


def test_openvino_takes_all(dense):
    session = open_session(dense, Engine("openvino", threads=1))
    assert placement(session) == {"OpenVINOExecutionProvider": {"MatMul": 1, "Softmax": 1}}


def test_an_operator_left_to_the_cpu_is_refused(half_supported):
    with pytest.raises(EngineUnavailable, match="OpenVINOExecutionProvider leaves to the CPU: 1 FastGelu"):
        open_session(half_supported, Engine("openvino", threads=1))


def test_shapes_may_stay_on_the_cpu(tmp_path):
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    session = open_session(save(tmp_path / "shapes.onnx", nodes), Engine("cpu"))
    require_no_fallback(session, "cuda")


def test_missing_provider_is_an_error(dense):
    with pytest.raises(EngineUnavailable, match="no TensorrtExecutionProvider"):
        open_session(dense, Engine("tensorrt"))


def test_every_kind_is_counted(tmp_path):
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale"], ["a"]),
        helper.make_node("SkipLayerNormalization", ["a", "x", "scale"], ["b"], domain="com.microsoft"),
        helper.make_node("BiasGelu", ["b", "scale"], ["c"], domain="com.microsoft"),
        helper.make_node("MultiHeadAttention", ["c", "c", "c"], ["y"], domain="com.microsoft", num_heads=2),
    ]
    path = save(tmp_path / "all.onnx", nodes, [weight("scale", WIDTH)], ["com.microsoft"])
    assert count(onnx.load(path)) == {"Attention": 1, "LayerNormalization": 2, "Gelu": 1}
