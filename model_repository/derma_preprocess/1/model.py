"""Triton model ``derma_preprocess``: encoded images to pixels.

A bad image fails only its own request, with INVALID_ARGUMENT and the reason. Where an audit log is
kept, pixels get a ticket of their image.
"""

from __future__ import annotations

import io

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image

from derma_semantics import ticket
from derma_semantics.errors import InvalidImage, to_wire
from derma_semantics.preprocess import preprocess


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config: pb_utils.ModelConfig) -> pb_utils.ModelConfig:
        if ticket.wanted():
            config.add_output(ticket.TENSOR)
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Decode once, so that the first request does not pay for loading the codecs."""
        sample = io.BytesIO()
        Image.new("RGB", (64, 64)).save(sample, "JPEG")
        preprocess(sample.getvalue())

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        return [_respond(request) for request in requests]


def _respond(request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
    try:
        images = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel()
        pixels = np.stack([preprocess(image) for image in images])
        tensors = [pb_utils.Tensor("PIXELS", pixels)]
        if ticket.wanted():
            tickets = np.stack([ticket.issue(*pair) for pair in zip(images, pixels)])
            tensors.append(pb_utils.Tensor(ticket.NAME, tickets))
        return pb_utils.InferenceResponse(tensors)
    except InvalidImage as exc:
        return _error(to_wire(exc), pb_utils.TritonError.INVALID_ARG)
    except Exception as exc:  # one request's failure must not become its batch's
        return _error(f"preprocessing failed: {exc!r}", pb_utils.TritonError.INTERNAL)


def _error(message: str, code: int) -> pb_utils.InferenceResponse:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
