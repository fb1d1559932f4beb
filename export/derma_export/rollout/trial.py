"""Whether a server answers as the graph that was exported does.

trial = Trial(version, engine)            # what this machine computes from the graph
trial.require(lambda pixels: control.infer(CANDIDATE, pixels))
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from derma_export import gate
from derma_export.graph import OnnxClassifier
from derma_export.samples import synthetic_samples
from derma_semantics.domain.contract import NETWORK
from derma_semantics.wire.transport import Outputs
from derma_serving.runtime.engine import Engine
from derma_serving.runtime.integrity import GRAPH, read_manifest
from derma_training.network.classifier import Answers

IMAGES = 16
BATCH = 8


class Trial:
    """The answers expected of a version, to drawn pictures, within its precision's limits of the gate.

    Raises:
        Exception: ONNX Runtime's own, where the graph cannot be run here.
    """

    def __init__(self, version: Path, engine: Engine) -> None:
        self.samples = synthetic_samples(IMAGES)
        self.limits = gate.LIMITS[read_manifest(version)["precision"]]
        self.expected = gate.in_batches(OnnxClassifier(version / GRAPH, engine), self.samples.pixels, BATCH)

    def require(self, infer: Callable[[NDArray[np.uint8]], Outputs]) -> gate.Report:
        """Ask a server for the same.

        Raises:
            GateFailed: its answers differ.
        """

        def run(pixels: Tensor) -> Answers:
            outputs = infer(pixels.numpy())
            return Answers(*(torch.from_numpy(outputs[name].copy()) for name in NETWORK.outputs))

        report = gate.compare(self.expected, gate.in_batches(run, self.samples.pixels, BATCH), self.limits)
        report.require(self.samples.names)
        return report
