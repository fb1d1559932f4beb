"""The graphs that engines are compared on: exported, and converted in each way.

    workshop = Workshop(classifier, calibration_pixels, folder, threads=2)
    workshop.graph("int8-static")           # a path, written at its first use

Quantised ones get their scales from the pixels that the workshop was given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor

from derma_bench.engine.ceiling import flops
from derma_export.exact import class_token_only
from derma_export.graph import INPUT, export_onnx
from derma_export.precision import CONVERSIONS
from derma_export.sensitivity import outside_the_blocks
from derma_serving.runtime.precisions import DEFAULT, by_name
from derma_training.network.classifier import Classifier

PRODUCTS = ["MatMul", "Gemm"]


@dataclass(frozen=True)
class Workshop:
    """Makes the graphs of contenders.

    Attributes:
        calibration: pixels for static scales.
        folder: takes graphs, each written at its first use.
        threads: of one operator; 0 for one a core.
    """

    classifier: Classifier
    calibration: Tensor
    folder: Path
    threads: int = 0

    def graph(self, kind: str) -> Path:
        """The classifier as ONNX: as exported (``fp32``), or converted."""
        path = self.folder / f"{kind}.onnx"
        if path.exists():
            return path
        if kind in GRAPHS:
            GRAPHS[kind](self.graph(DEFAULT), path, self.calibration)
        elif conversion := by_name(kind).conversion:
            model = onnx.load(str(self.graph(DEFAULT)))
            onnx.save(CONVERSIONS[conversion].convert(model, [], self.calibration), str(path))
        else:
            export_onnx(self.classifier, path)
        return path

    def flops(self, *, exported: bool) -> int:
        """Of one image; the exported graph leaves out what nobody reads of the last block."""
        visual = self.classifier.visual
        with torch.no_grad():
            image = self.classifier.normalise(self.calibration[:1])
        if not exported:
            return flops(visual, image)
        with class_token_only(visual.trunk):
            return flops(visual, image)


def dynamic_int8(source: Path, target: Path, pixels: Tensor) -> None:
    """ONNX Runtime's: one scale a channel of weights; activations get one a batch, as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = _plain(source)
    quantize_dynamic(
        model,
        target,
        op_types_to_quantize=PRODUCTS,
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=outside_the_blocks(model),
    )


def static_int8(source: Path, target: Path, pixels: Tensor) -> None:
    """ONNX Runtime's QDQ form: the range of each activation is measured on ``pixels``."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = _plain(source)
    quantize_static(
        model,
        target,
        _Calibration(pixels),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=PRODUCTS,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=outside_the_blocks(model),
        extra_options={"MatMulConstBOnly": True},
    )


GRAPHS: dict[str, Callable[[Path, Path, Tensor], None]] = {
    "int8-dynamic": dynamic_int8,
    "int8-static": static_int8,
}


def _plain(source: Path) -> onnx.ModelProto:
    """Without the shapes that the exporter noted before it folded constants: some are stale."""
    model = onnx.load(str(source))
    model.graph.ClearField("value_info")
    return model


class _Calibration:
    """Images one at a time, as ONNX Runtime's ``CalibrationDataReader`` gives them."""

    def __init__(self, pixels: Tensor) -> None:
        self._images = iter(pixels)

    def get_next(self) -> dict[str, Any] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT: image[None].numpy()}
