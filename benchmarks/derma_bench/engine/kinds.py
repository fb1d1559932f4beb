"""The engines that ``derma-bench engine`` knows.

    workshop = Workshop(classifier, calibration_pixels, folder, threads=2)
    contender = KINDS["openvino-bf16"].open("openvino-bf16", workshop)
    contender.run(pixels).probabilities

A kind is a precision, a provider of ONNX Runtime and a graph; without a graph it is PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import onnxruntime
import torch
from torch import Tensor

from derma_bench.engine.graphs import Workshop
from derma_export.gate import Runner
from derma_export.graph import OnnxClassifier
from derma_serving.runtime.engine import PROVIDERS, Engine, Provider
from derma_serving.runtime.precisions import DEFAULT, PRECISIONS, by_name
from derma_training.network.classifier import Answers, Classifier

REFERENCE = "torch-fp32"


@dataclass(frozen=True)
class Contender:
    """An opened engine.

    Attributes:
        precision: of the ceiling that it is held against.
        flops: of one image, as this engine computes it.
    """

    name: str
    precision: str
    run: Runner
    flops: int
    device: str = "cpu"


@dataclass(frozen=True)
class Kind:
    """How a contender is opened: a graph in an engine, or PyTorch itself where ``graph`` is empty."""

    precision: str
    provider: Provider = "cpu"
    graph: str = ""

    @property
    def device(self) -> str:
        return "cuda" if self.provider in ("cuda", "tensorrt") else "cpu"

    def open(self, name: str, workshop: Workshop) -> Contender:
        """Raises EngineUnavailable where its provider is not installed."""
        count = workshop.flops(exported=bool(self.graph))
        if not self.graph:
            return Contender(name, self.precision, in_torch(workshop.classifier, self.precision), count)
        engine = Engine(self.provider, self.precision, workshop.threads)
        run = OnnxClassifier(workshop.graph(self.graph), engine)
        return Contender(name, self.precision, run, count, self.device)


KINDS = {
    **{f"torch-{p.name}": Kind(p.name) for p in PRECISIONS if p.torch_type and not p.gpu},
    "ort-fp32": Kind("fp32", "cpu", "fp32"),
    "ort-int8-dynamic": Kind("int8", "cpu", "int8-dynamic"),
    "ort-int8-static": Kind("int8", "cpu", "int8-static"),
    **{f"openvino-{p.name}": Kind(p.name, "openvino", p.graph) for p in PRECISIONS if not p.gpu},
    **{f"cuda-{p.name}": Kind(p.name, "cuda", p.graph) for p in PRECISIONS if p.gpu},
    **{f"tensorrt-{p.name}": Kind(p.name, "tensorrt", p.graph) for p in PRECISIONS if p.gpu},
}


def startable() -> tuple[str, ...]:
    """The engines whose provider this ONNX Runtime has."""
    available = onnxruntime.get_available_providers()
    return tuple(name for name, kind in KINDS.items() if PROVIDERS[kind.provider] in available)


def in_torch(classifier: Classifier, precision: str = DEFAULT) -> Runner:
    """PyTorch, eager, on the CPU; less than fp32 by autocast."""
    return partial(_in_torch, classifier, getattr(torch, str(by_name(precision).torch_type)))


@torch.inference_mode()
def _in_torch(classifier: Classifier, dtype: torch.dtype, pixels: Tensor) -> Answers:
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        answers: Answers = classifier(pixels)
    return Answers(*(part.float() if part.is_floating_point() else part for part in answers))
