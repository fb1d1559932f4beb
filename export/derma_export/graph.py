"""A classifier as one ONNX graph.

    export_onnx(Classifier.from_bundle(bundle), Path("model.onnx"))
    answers = OnnxClassifier(Path("model.onnx"))(pixels)     # same Answers as in PyTorch

Input and outputs are named as in ``contract.NETWORK``.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from derma_export.exact import class_token_only, fused_attention, whole_pixels
from derma_semantics.domain.contract import IMAGE_SIZE, NETWORK
from derma_serving.runtime.engine import Engine, open_session
from derma_training.network.classifier import Answers, Classifier

OPSET = 20
INPUT = next(iter(NETWORK.inputs))


def export_onnx(classifier: Classifier, path: Path, *, fuse_attention: bool = False) -> None:
    """Write ``path``: uint8 NHWC pixels in, the contract's outputs, batch size free.

    Args:
        fuse_attention: as one operator each, which is for GPUs: others compute it from its parts.
    """
    example = torch.zeros(2, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=1024)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    trunk = classifier.visual.trunk
    fused = fused_attention(trunk) if fuse_attention else nullcontext()
    with whole_pixels(classifier), class_token_only(trunk), fused:
        program = torch.onnx.export(
            classifier,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=({0: batch},),
            input_names=[INPUT],
            output_names=list(NETWORK.outputs),
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=False)


class OnnxClassifier:
    """An exported graph behind the interface of ``Classifier``."""

    def __init__(self, path: Path, engine: Engine | None = None) -> None:
        self.session = open_session(path, engine or Engine())

    def __call__(self, pixels: Tensor) -> Answers:
        outputs: list[NDArray[np.generic]] = self.session.run(list(NETWORK.outputs), {INPUT: pixels.numpy()})
        return Answers(*(torch.from_numpy(output) for output in outputs))
