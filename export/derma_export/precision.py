"""A graph in another precision, with the layers that suffer from it kept as they were.

    for attempt in attempts(graph, "int8", pixels, folder):    # until one passes the gate
        attempt.graph, attempt.kept

fp32 and bf16 are the same file: bf16 is the engine's arithmetic. fp16 and int8 are files of
their own; each further attempt keeps more layers, the worst first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from torch import Tensor

from derma_export import half
from derma_export.sensitivity import INPUT, Layer, by_noise, by_range, outside_the_blocks, outside_the_tower
from derma_serving.runtime.engine import Precision

KEEP = (0, 2, 4, 8, 16, 24)
# Half of what fp16 can hold, for images that are larger than those measured.
HALF_RANGE = 32_768.0

# Graph, nodes to keep in fp32, calibration images: the converted graph.
Convert = Callable[[onnx.ModelProto, list[str], Tensor], onnx.ModelProto]


@dataclass(frozen=True)
class Attempt:
    """A graph to judge, and the layers that stayed in fp32."""

    graph: Path
    kept: tuple[Layer, ...] = ()


def attempts(graph: Path, precision: Precision, pixels: Tensor, folder: Path) -> Iterator[Attempt]:
    """Versions of ``graph``, from the fastest to the safest.

    Args:
        pixels: uint8 (N, 224, 224, 3): int8 measures its ranges on them; sensitivity on the first few.
        folder: takes the files.
    """
    if precision not in CONVERSIONS:
        yield Attempt(graph)
        return
    rank, convert = CONVERSIONS[precision]
    ranked = rank(graph, pixels)
    # Processors compute fp16 in fp32, so a gate there would not see what overflows: it is kept anyway.
    least = sum(layer.value > HALF_RANGE for layer in ranked) if precision == "fp16" else 0
    for count in sorted({max(least, count) for count in KEEP}):
        kept, model = ranked[:count], onnx.load(str(graph))
        nodes = [name for layer in kept for name in layer.nodes]
        target = folder / f"{precision}-{count}.onnx"
        onnx.save(convert(model, nodes, pixels), str(target))
        yield Attempt(target, tuple(kept))


def to_fp16(model: onnx.ModelProto, kept: list[str], pixels: Tensor) -> onnx.ModelProto:
    """See ``half``; needs no images."""
    return half.to_fp16(model, [*kept, *outside_the_tower(model)])


def to_int8(model: onnx.ModelProto, kept: list[str], pixels: Tensor) -> onnx.ModelProto:
    """NNCF's static quantisation: one scale a channel of weights, one a tensor of activations.

    Static scales make an answer independent of its companions in the batch. SmoothQuant
    (arXiv 2211.10438) moves outliers from activations into weights. The first and the last layer stay as
    they are, as is usual: a fortieth of a ViT-Tiny's work, and most of what its embeddings lose.
    """
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    images = nncf.Dataset([{INPUT: image[None].numpy()} for image in pixels])
    quantised: onnx.ModelProto = nncf.quantize(
        model,
        images,
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(pixels),
        ignored_scope=nncf.IgnoredScope(names=[*kept, *outside_the_blocks(model)], validate=False),
    )
    return quantised


CONVERSIONS: dict[str, tuple[Callable[[Path, Tensor], list[Layer]], Convert]] = {
    "fp16": (by_range, to_fp16),
    "int8": (by_noise, to_int8),
}
