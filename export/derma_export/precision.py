"""A graph in another precision, with the layers that suffer from it kept as they were.

    for attempt in attempts(graph, "int8", pixels, folder):    # until one passes the gate
        attempt.graph, attempt.kept

Where ``precisions`` names no conversion, the engine's arithmetic makes the difference and the file stays
as it is. Converted ones are files of their own; each further attempt keeps more layers, the worst first.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from torch import Tensor

from derma_export import half
from derma_export.sensitivity import INPUT, Layer, by_noise, by_range, outside_the_blocks, outside_the_tower
from derma_serving.runtime.precisions import by_name

KEEP = (0, 2, 4, 8, 16, 24)
# Half of what fp16 can hold, for images that are larger than those measured.
HALF_RANGE = 32_768.0


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A way to convert a graph.

    Attributes:
        rank: its layers, those that suffer most first, from a graph and images.
        convert: a graph, nodes to keep in fp32 and calibration images to the converted graph.
        keep_above: layers of a higher rank are kept at once, though the gate may not see what they lose.
    """

    rank: Callable[[Path, Tensor], list[Layer]]
    convert: Callable[[onnx.ModelProto, list[str], Tensor], onnx.ModelProto]
    keep_above: float = math.inf


@dataclass(frozen=True)
class Attempt:
    """A graph to judge, and the layers that stayed in fp32."""

    graph: Path
    kept: tuple[Layer, ...] = ()


def attempts(graph: Path, precision: str, pixels: Tensor, folder: Path) -> Iterator[Attempt]:
    """Versions of ``graph``, from the fastest to the safest.

    Args:
        pixels: uint8 (N, 224, 224, 3): int8 measures its ranges on them; sensitivity on the first few.
        folder: takes the files.
    """
    name = by_name(precision).conversion
    if name is None:
        yield Attempt(graph)
        return
    conversion = CONVERSIONS[name]
    ranked = conversion.rank(graph, pixels)
    least = sum(layer.value > conversion.keep_above for layer in ranked)
    for count in sorted({max(least, count) for count in KEEP}):
        kept, model = ranked[:count], onnx.load(str(graph))
        nodes = [name for layer in kept for name in layer.nodes]
        target = folder / f"{precision}-{count}.onnx"
        onnx.save(conversion.convert(model, nodes, pixels), str(target))
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


# By ``Precision.conversion``.
CONVERSIONS = {
    # Processors compute fp16 in fp32, so a gate there would not see what overflows: it is kept anyway.
    "half": Conversion(rank=by_range, convert=to_fp16, keep_above=HALF_RANGE),
    "quantised": Conversion(rank=by_noise, convert=to_int8),
}
