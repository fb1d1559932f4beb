"""Which layers lose most when numbers get coarse, from one pass in fp32.

    layers = by_range(graph, pixels)          # fp16: largest values first
    layers = by_noise(graph, pixels)          # int8: most noise for its signal first

Both look at the nodes that multiply by weights, and name them by their place in the network.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


@dataclass(frozen=True)
class Layer:
    """What is kept as one: its place such as ``blocks.3.mlp``, its nodes, and what was measured there."""

    place: str
    nodes: tuple[str, ...]
    value: float

    def __str__(self) -> str:
        return f"{self.place} ({self.value:.3g})"


def by_range(graph: Path, pixels: Tensor) -> list[Layer]:
    """Parts of the tower by the largest magnitude that any of their nodes puts out.

    Attentions and MLPs are kept whole: what one of their layers puts out, the next takes in.
    """
    model = onnx.load(str(graph))
    units: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if _modules(node):
            units.setdefault(_unit(node), []).append(node)
    largest = _largest(model, units, pixels)
    names = {unit: tuple(node.name for node in nodes) for unit, nodes in units.items()}
    return _ranked(Layer(_place(unit), names[unit], largest[unit]) for unit in units)


def by_noise(graph: Path, pixels: Tensor) -> list[Layer]:
    """Layers by the noise that int8 adds to their input, measured by its signal, most first.

    One scale a tensor, so that a few large values (outliers) leave few steps to all others.
    """
    measured = _measured_noise(onnx.load(str(graph)), pixels)
    return _ranked(Layer(_place(_modules(node)[-1]), (node.name,), value) for node, value in measured)


def outside_the_tower(model: onnx.ModelProto) -> list[str]:
    """Nodes before and after the image tower: centring pixels, comparing with texts, triage, input check."""
    return [node.name for node in model.graph.node if not _modules(node)]


def outside_the_blocks(model: onnx.ModelProto) -> list[str]:
    """These, and the tower's first and last layer: patches and projection."""
    return [node.name for node in model.graph.node if not _in_a_block(node)]


def layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Nodes of the transformer blocks that multiply by weights."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and _in_a_block(node) and node.input[1] in weights
    ]


def _ranked(found: Iterable[Layer]) -> list[Layer]:
    return sorted(found, key=lambda layer: -layer.value)


def _measured_noise(model: onnx.ModelProto, pixels: Tensor) -> Iterator[tuple[onnx.NodeProto, float]]:
    """Each layer with the worst noise of its input over the images; ``model`` gains outputs."""
    watched = layers(model)
    tensors = [node.input[0] for node in watched]
    worst = np.zeros(len(watched))
    for values in _values(model, tensors, pixels):
        worst = np.maximum(worst, [_noise(value) for value in values])
    yield from zip(watched, worst.tolist())


def _largest(
    model: onnx.ModelProto, units: Mapping[str, list[onnx.NodeProto]], pixels: Tensor
) -> dict[str, float]:
    owners = {node.output[0]: unit for unit, nodes in units.items() for node in nodes}
    worst = dict.fromkeys(units, 0.0)
    for values in _values(model, list(owners), pixels):
        for unit, value in zip(owners.values(), values):
            if value.dtype == np.float32 and value.size:
                worst[unit] = max(worst[unit], float(np.abs(value).max()))
    return worst


def _values(
    model: onnx.ModelProto, tensors: Sequence[str], pixels: Tensor
) -> Iterator[list[NDArray[np.float32]]]:
    """Values of tensors for one image after the other: all of a large tower's are gigabytes a batch."""
    shown = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(set(tensors) - shown))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for image in pixels[:IMAGES]:
        yield session.run(list(tensors), {INPUT: image[None].numpy()})


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


def _in_a_block(node: onnx.NodeProto) -> bool:
    return any(".blocks." in name for name in _modules(node))


def _unit(node: onnx.NodeProto) -> str:
    """The attention or MLP that a node belongs to, else its innermost module."""
    modules = _modules(node)
    return next((name for name in modules if name.endswith((".attn", ".mlp"))), modules[-1])


def _place(module: str) -> str:
    return module.removeprefix(f"{TOWER}.").removeprefix("trunk.")
