"""Sends a share of the images to the candidate, the others to the network.

An image's own pixels decide, so that it gets its answer from the same version each time, and a
larger share only adds images. Where the candidate fails, the network answers: BUNDLE says which did.
"""

from __future__ import annotations

import asyncio
import hashlib
import json

import numpy as np
import triton_python_backend_utils as pb_utils

from derma_semantics.domain.contract import CANDIDATE, NETWORK

OUTPUTS = list(NETWORK.outputs)
HASHES = 2**64


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        self.threshold = float(parameters["percent"]["string_value"]) / 100 * HASHES

    async def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        return list(await asyncio.gather(*map(self._answer, requests)))

    async def _answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        """A request may hold several images, which may go different ways; its timeout goes with them."""
        within = request.timeout()
        pixels = pb_utils.get_input_tensor_by_name(request, "PIXELS").as_numpy()
        chosen = np.array([self._is_canary(image) for image in pixels])
        if chosen.all() or not chosen.any():
            return await _ask(pixels, bool(chosen.all()), within)
        answers = await asyncio.gather(
            _ask(pixels[chosen], True, within), _ask(pixels[~chosen], False, within)
        )
        for answer in answers:
            if answer.has_error():
                return answer
        return _joined(chosen, *answers)

    def _is_canary(self, image: np.ndarray) -> bool:
        digest = hashlib.sha256(image.tobytes()).digest()
        return int.from_bytes(digest[:8], "big") < self.threshold


async def _ask(pixels: np.ndarray, canary: bool, within: int) -> pb_utils.InferenceResponse:
    if canary:
        answer = await _infer(CANDIDATE.name, pixels, within)
        if not answer.has_error():
            return answer
        pb_utils.Logger.log_warn(f"the candidate failed, the network answers: {answer.error().message()}")
    return await _infer(NETWORK.name, pixels, within)


async def _infer(model: str, pixels: np.ndarray, within: int) -> pb_utils.InferenceResponse:
    """Ask a model. What waits there for ``within`` microseconds is refused; 0: as long as its queue says."""
    try:
        answer = await pb_utils.InferenceRequest(
            model_name=model,
            requested_output_names=OUTPUTS,
            inputs=[pb_utils.Tensor("PIXELS", np.ascontiguousarray(pixels))],
            timeout=within,
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),
        ).async_exec()
    except pb_utils.TritonModelException as exc:  # no such model is loaded
        return pb_utils.InferenceResponse([], pb_utils.TritonError(str(exc)))
    if answer.has_error():
        return pb_utils.InferenceResponse([], answer.error())
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor(name, pb_utils.get_output_tensor_by_name(answer, name).as_numpy())
            for name in OUTPUTS
        ]
    )


def _joined(
    chosen: np.ndarray, canary: pb_utils.InferenceResponse, rest: pb_utils.InferenceResponse
) -> pb_utils.InferenceResponse:
    tensors = []
    for name in OUTPUTS:
        parts = [pb_utils.get_output_tensor_by_name(answer, name).as_numpy() for answer in (canary, rest)]
        if parts[0].shape[1:] != parts[1].shape[1:]:
            message = f"{name} of the two versions differ in size: ask for one image at a time"
            return pb_utils.InferenceResponse([], pb_utils.TritonError(message))
        whole = np.empty((len(chosen), *parts[0].shape[1:]), parts[0].dtype)
        whole[chosen], whole[~chosen] = parts
        tensors.append(pb_utils.Tensor(name, whole))
    return pb_utils.InferenceResponse(tensors)
