"""Triton model ``derma_preprocess``: encoded images to pixels.

A bad image fails only its own request, with INVALID_ARGUMENT and the reason. With the parameter
``decoder: nvimgcodec`` a batch's JPEGs are decoded together before, on the instance's GPU if it has one.
Where an audit log is kept, pixels get a ticket of their image.
"""

from __future__ import annotations

import io
import json
from itertools import zip_longest

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image

from derma_semantics.domain.contract import TICKET
from derma_semantics.domain.errors import InvalidImage, to_wire
from derma_semantics.imaging.guarded import GuardedDecoder
from derma_serving.runtime import ticket
from derma_serving.runtime.nvimgcodec import Decoder

DECODERS = ("pillow", "nvimgcodec")


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
        self.guarded = GuardedDecoder()
        self.guarded.preprocess(sample.getvalue())

        self.decoder = _decoder(args)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        ready = self._decoded(requests) if self.decoder else [()] * len(requests)
        return [_respond(request, done, self.guarded) for request, done in zip(requests, ready)]

    def finalize(self) -> None:
        self.guarded.close()

    def _decoded(self, requests: list[pb_utils.InferenceRequest]) -> list[list[np.ndarray | None]]:
        """Pixels of all images that the decoder takes, by request; None for the others."""
        try:
            batch = [_images(request) for request in requests]
            pixels = iter(self.decoder.preprocess([image for images in batch for image in images]))
        except Exception as exc:  # Pillow answers, or says what is wrong
            pb_utils.Logger.log_warn(f"a batch is decoded without nvImageCodec: {exc!r}")
            return [[]] * len(requests)
        return [[next(pixels) for _ in images] for images in batch]


def _decoder(args: dict[str, str]) -> Decoder | None:
    """What the configuration asks for beside Pillow; Triton shows what this raises."""
    parameters = json.loads(args["model_config"]).get("parameters", {})
    name = parameters.get("decoder", {"string_value": DECODERS[0]})["string_value"]
    if name not in DECODERS:
        raise ValueError(f"unknown decoder {name!r}: choose from {', '.join(DECODERS)}")
    if name == DECODERS[0]:
        return None
    gpu = args["model_instance_kind"] == "GPU"
    decoder = Decoder(int(args["model_instance_device_id"]) if gpu else None)
    decoder.check()
    return decoder


def _images(request: pb_utils.InferenceRequest) -> np.ndarray:
    return pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel()


def _respond(
    request: pb_utils.InferenceRequest, ready: list[np.ndarray | None], guarded: GuardedDecoder
) -> pb_utils.InferenceResponse:
    try:
        images = _images(request)
        pairs = zip_longest(images, ready)
        pixels = np.stack([guarded.preprocess(image)[0] if done is None else done for image, done in pairs])
        tensors = [pb_utils.Tensor("PIXELS", pixels)]
        if ticket.wanted():
            tickets = np.stack([ticket.issue(*pair) for pair in zip(images, pixels)])
            tensors.append(pb_utils.Tensor(TICKET, tickets))
        return pb_utils.InferenceResponse(tensors)
    except InvalidImage as exc:
        return _error(to_wire(exc), pb_utils.TritonError.INVALID_ARG)
    except Exception as exc:  # one request's failure must not become its batch's
        return _error(f"preprocessing failed: {exc!r}", pb_utils.TritonError.INTERNAL)


def _error(message: str, code: int) -> pb_utils.InferenceResponse:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
