"""Which layers lose most when numbers get coarse, from one pass in fp32.

    layers = by_range(graph, pixels)          # fp16: largest values first
    layers = by_noise(graph, pixels)          # int8: most noise for its signal first

Both look at the nodes that multiply by weights, and name them by their place in the network.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from torch import Tensor

INPUT = "PIXELS"
SCOPES = "pkg.torch.onnx.name_scopes"
TOWER = "visual"
IMAGES = 16

Measure = Callable[[NDArray[np.float32]], float]


@dataclass(frozen=True)
class Layer:
    """What is kept as one: its place such as ``blocks.3.mlp``, its nodes, and what was measured there."""

    place: str
    nodes: tuple[str, ...]
    value: float

    def __str__(self) -> str:
        return f"{self.place} ({self.value:.3g})"


def by_range(graph: Path, pixels: Tensor) -> list[Layer]:
    """Attentions and MLPs by the largest magnitude of their layers' output; fp16 ends at 65,504.

    Each is kept whole: what one of its layers puts out, the next takes in.
    """
    model = onnx.load(str(graph))
    largest: dict[str, float] = {}
    for node, value in _measure(model, pixels, _largest, outputs=True):
        module = _modules(node)[-2]
        largest[module] = max(value, largest.get(module, 0.0))
    nodes = {m: tuple(n.name for n in model.graph.node if m in _modules(n)) for m in largest}
    return _ranked(Layer(_place(module), nodes[module], value) for module, value in largest.items())


def by_noise(graph: Path, pixels: Tensor) -> list[Layer]:
    """Layers by the noise that int8 adds to their input, measured by its signal, most first.

    One scale a tensor, so that a few large values (outliers) leave few steps to all others.
    """
    measured = _measure(onnx.load(str(graph)), pixels, _noise, outputs=False)
    return _ranked(Layer(_place(_modules(node)[-1]), (node.name,), value) for node, value in measured)


def outside_the_tower(model: onnx.ModelProto) -> list[str]:
    """Nodes before and after the image tower: normalising, comparing with texts, triage."""
    return [node.name for node in model.graph.node if not _modules(node)]


def layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Nodes of the image tower that multiply by weights."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm", "Conv") and _modules(node) and node.input[1] in weights
    ]


def _ranked(found: Iterable[Layer]) -> list[Layer]:
    return sorted(found, key=lambda layer: -layer.value)


def _measure(
    model: onnx.ModelProto, pixels: Tensor, measure: Measure, *, outputs: bool
) -> Iterator[tuple[onnx.NodeProto, float]]:
    """Each layer with the worst value over the images; ``model`` gains outputs."""
    watched = layers(model)
    tensors = [node.output[0] if outputs else node.input[0] for node in watched]
    shown = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(set(tensors) - shown))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    worst = np.zeros(len(watched))
    for image in pixels[:IMAGES]:  # one at a time: all activations of a large tower are gigabytes a batch
        values = session.run(tensors, {INPUT: image[None].numpy()})
        worst = np.maximum(worst, [measure(value) for value in values])
    yield from zip(watched, worst.tolist())


def _largest(values: NDArray[np.float32]) -> float:
    return float(np.abs(values).max())


def _noise(values: NDArray[np.float32]) -> float:
    """Power of the rounding error against that of a typical channel, which an outlier does not raise."""
    step = np.abs(values).max() / 127
    power = np.square(values).reshape(-1, values.shape[-1]).mean(axis=0)
    return float(step**2 / 12 / max(float(np.median(power)), 1e-30))


def _modules(node: onnx.NodeProto) -> list[str]:
    """Paths of the tower's modules around a node, outermost first."""
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            names = [str(name) for name in ast.literal_eval(entry.value)]
            return [name for name in names if name.split(".")[0] == TOWER]
    return []


def _place(module: str) -> str:
    return module.removeprefix(f"{TOWER}.").removeprefix("trunk.")
