"""Triton model ``derma_audit``: the last step before an answer leaves, where an audit log is kept.

It hands every output on unchanged once the lines are written. What could not be written is not
answered: the caller gets UNAVAILABLE.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from audit_log import AuditLog, entry
from derma_semantics.request_id import HEADER, name, new

# Exactly so: the proxy writes it, and Triton prefers its header to what a request says of itself.
CALLER = "derma-caller"


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.outputs = [output["name"] for output in config["output"]]
        self.log = AuditLog(Path(os.environ["DERMA_AUDIT_LOG"]))

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        return [self._respond(request) for request in requests]

    def finalize(self) -> None:
        self.log.close()

    def _respond(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        try:
            tensors = [pb_utils.get_input_tensor_by_name(request, name) for name in self.outputs]
            self._audit(request, {tensor.name(): tensor.as_numpy() for tensor in tensors})
        except Exception as exc:
            # An error's own text may quote what was sent; that of the system names what is full or missing.
            reason = exc.strerror if isinstance(exc, OSError) else type(exc).__name__
            message = f"the audit log cannot be written, so there is no answer: {reason}"
            return pb_utils.InferenceResponse(
                error=pb_utils.TritonError(message, pb_utils.TritonError.UNAVAILABLE)
            )
        return pb_utils.InferenceResponse(tensors)

    def _audit(self, request: pb_utils.InferenceRequest, answers: dict[str, np.ndarray]) -> None:
        images = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel()
        told = json.loads(request.parameters() or "{}")
        headers = {key.lower(): value for key, value in told.items()}
        request_id = name(request.request_id()) or name(headers.get(HEADER)) or new()
        rows = zip(images, answers["BUNDLE"], answers["PROBABILITIES"], answers["TRIAGE"].ravel())
        self.log.append(
            entry(request_id, image, bundle.tobytes(), probabilities.tolist(), int(triage), told.get(CALLER))
            for image, bundle, probabilities, triage in rows
        )
