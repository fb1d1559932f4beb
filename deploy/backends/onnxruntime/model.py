"""A stand-in for Triton's native ONNX Runtime backend, for servers that lack it.

Models that say ``backend: "onnxruntime"`` run on it unchanged: it reads the same
``default_model_filename``, ``intra_op_thread_count`` and ``inter_op_thread_count``
(https://github.com/triton-inference-server/onnxruntime_backend).
It is a Triton "python-based backend": this file serves every such model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

PROVIDERS = {"GPU": ["CUDAExecutionProvider", "CPUExecutionProvider"], "CPU": ["CPUExecutionProvider"]}


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        version = Path(args["model_repository"]) / args["model_version"]
        graph = version / (config.get("default_model_filename") or "model.onnx")
        providers = PROVIDERS[args["model_instance_kind"]]
        self.session = onnxruntime.InferenceSession(str(graph), _options(config), providers=providers)
        self.inputs = [tensor.name for tensor in self.session.get_inputs()]
        self.outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Run all requests as one batch and cut the answers apart again."""
        feeds = [[_input(request, name) for name in self.inputs] for request in requests]
        ends = np.cumsum([feed[0].shape[0] for feed in feeds])[:-1]
        batch = [tensors[0] if len(tensors) == 1 else np.concatenate(tensors) for tensors in zip(*feeds)]
        answers = self.session.run(self.outputs, dict(zip(self.inputs, batch)))
        parts = zip(*(np.split(answer, ends) for answer in answers))
        return [self._response(part) for part in parts]

    def _response(self, arrays: tuple[np.ndarray, ...]) -> pb_utils.InferenceResponse:
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, array) for name, array in zip(self.outputs, arrays)]
        )


def _input(request: pb_utils.InferenceRequest, name: str) -> np.ndarray:
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()


def _options(config: dict[str, Any]) -> onnxruntime.SessionOptions:
    parameters = {k: v["string_value"] for k, v in config.get("parameters", {}).items()}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", 0))
    options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", 0))
    return options
