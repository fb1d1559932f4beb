"""The rate at which this machine multiplies matrices, and the operations of a network.

    gemms = dense_gemms("bf16", batches=(1, 8), threads=2, folder=folder)
    max(gemm.rate(seconds=0.1) for gemm in gemms)      # GFLOP/s that no engine should exceed by much
    flops(classifier.visual, floats)                   # of one forward pass; a multiply-add counts as 2

The ceiling is measured and not a data sheet's: the best of several libraries, sizes and calls.
Sizes are those of the bundle's and of BiomedCLIP's MLP, and a large square.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from derma_export.graph import OPSET
from derma_serving.runtime.engine import Engine, EngineUnavailable, open_session
from derma_serving.runtime.precisions import by_name

TOKENS, WIDTH, HIDDEN = 197, 768, 3072  # of ViT-B/16 at 224 pixels
SQUARE = 2048


@dataclass(frozen=True)
class Gemm:
    """A product of a (rows, inner) and an (inner, columns) matrix, by one library."""

    library: str
    precision: str
    rows: int
    inner: int
    columns: int
    run: Callable[[], object]

    def __str__(self) -> str:
        return f"{self.library} {self.rows} x {self.inner} x {self.columns}"

    def rate(self, seconds: float) -> float:
        """GFLOP/s of the fastest call within this time; of three calls at least."""
        self.run()
        best, begin, calls = float("inf"), time.perf_counter(), 0
        while calls < 3 or time.perf_counter() - begin < seconds:
            since = time.perf_counter()
            self.run()
            best, calls = min(best, time.perf_counter() - since), calls + 1
        return 2 * self.rows * self.inner * self.columns / best / 1e9


def dense_gemms(precision: str, *, batches: Sequence[int], threads: int, folder: Path) -> list[Gemm]:
    """Products to take the best of.

    Args:
        threads: of one product, 0 for one a core. PyTorch's are the process's own.
        folder: takes small graphs.
    """
    rows = TOKENS * max(batches)
    sizes = sorted({(rows, WIDTH, HIDDEN), (rows, HIDDEN, WIDTH), (SQUARE, SQUARE, SQUARE)})
    if by_name(precision).torch_type:
        return [_torch(precision, size) for size in sizes]
    return [gemm for size in sizes for gemm in (_torch_int8(size), *_openvino_int8(size, threads, folder))]


def flops(module: nn.Module, *inputs: Tensor) -> int:
    """Floating-point operations of matrix products and convolutions in one forward pass."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(*inputs)
    return int(counter.get_total_flops())


def _torch(precision: str, size: tuple[int, int, int]) -> Gemm:
    rows, inner, columns = size
    dtype = getattr(torch, str(by_name(precision).torch_type))
    a, b = (torch.randn(shape).to(dtype) for shape in ((rows, inner), (inner, columns)))
    return Gemm("torch", precision, *size, lambda: torch.matmul(a, b))


def _torch_int8(size: tuple[int, int, int]) -> Gemm:
    rows, inner, columns = size
    a, b = (torch.randint(-127, 128, shape, dtype=torch.int8) for shape in ((rows, inner), (inner, columns)))
    return Gemm("torch", "int8", *size, lambda: torch._int_mm(a, b))


def _openvino_int8(size: tuple[int, int, int], threads: int, folder: Path) -> Iterator[Gemm]:
    """OpenVINO's, from bytes to bytes; nothing where this ONNX Runtime is without OpenVINO."""
    rows, inner, columns = size
    path = folder / f"gemm-int8-{inner}x{columns}.onnx"
    onnx.save(_quantised_product(inner, columns), str(path))
    try:
        session = open_session(path, Engine("openvino", "int8", threads))
    except EngineUnavailable:
        return
    values = np.random.default_rng(0).integers(0, 256, (rows, inner)).astype(np.uint8)
    yield Gemm("openvino", "int8", *size, lambda: session.run(None, {"a": values}))


def _quantised_product(inner: int, columns: int) -> onnx.ModelProto:
    """uint8 times int8, quantised to uint8 again; the form that engines recognise as an int8 product."""
    weights = np.random.default_rng(1).integers(-127, 128, (inner, columns)).astype(np.int8)
    constants: dict[str, Any] = {
        "b": weights,
        "a_scale": np.float32(0.02),
        "a_zero": np.uint8(128),
        "b_scale": np.full(columns, 0.01, np.float32),
        "b_zero": np.zeros(columns, np.int8),
        "y_scale": np.float32(1),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["a", "a_scale", "a_zero"], ["a_float"]),
        helper.make_node("DequantizeLinear", ["b", "b_scale", "b_zero"], ["b_float"], axis=1),
        helper.make_node("MatMul", ["a_float", "b_float"], ["y_float"]),
        helper.make_node("QuantizeLinear", ["y_float", "y_scale", "a_zero"], ["y"]),
    ]
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, [None, length])
        for name, length in (("a", inner), ("y", columns))
    ]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "product", tensors[:1], tensors[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
