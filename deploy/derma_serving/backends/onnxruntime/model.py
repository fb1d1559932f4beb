"""A stand-in for Triton's native ONNX Runtime backend, for servers that lack it.

Models that say ``backend: "onnxruntime"`` run on it unchanged. It is a Triton
"python-based backend": this file serves every such model.
"""

from __future__ import annotations

import json
import os
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

from derma_semantics.domain.contract import CANDIDATE, NETWORK
from derma_serving.runtime import ticket
from derma_serving.runtime.audit import Audit
from derma_serving.runtime.configuration import engine_for
from derma_serving.runtime.engine import open_session
from derma_serving.runtime.integrity import GRAPH, check_answers, check_version
from derma_serving.runtime.lock import locked

OURS = (NETWORK.name, CANDIDATE.name)


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config: pb_utils.ModelConfig) -> pb_utils.ModelConfig:
        """Where an audit log is kept, our network takes tickets; optional, as warm-ups have none."""
        if ticket.wanted() and config.as_dict()["name"] in OURS:
            config.add_input({**ticket.TENSOR, "optional": True})
        return config

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        version = Path(args["model_repository"]) / args["model_version"]
        graph = config.get("default_model_filename") or GRAPH
        manifest = _checked(config, version, graph)
        engine = engine_for(
            config,
            args["model_instance_kind"],
            cores=len(os.sched_getaffinity(0)),
            available=onnxruntime.get_available_providers(),
            device=int(args["model_instance_device_id"]),
        )
        # Instances load one after another: the first builds TensorRT's engine, the others find it cached.
        with locked(version):
            self.session = open_session(version / graph, engine)
        if manifest:
            check_answers(self.session, manifest)
        self.inputs = [tensor.name for tensor in self.session.get_inputs()]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.audit = _audit(config)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        return self.audit.answer(requests, self._answer) if self.audit else self._answer(requests)

    def finalize(self) -> None:
        if self.audit:
            self.audit.close()

    def _answer(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Run all requests as one batch and cut the answers apart again."""
        parts = [[_input(request, name) for request in requests] for name in self.inputs]
        answers = self._run([part[0] if len(part) == 1 else np.concatenate(part) for part in parts])
        ends = accumulate((len(tensor) for tensor in parts[0]), initial=0)
        return [self._response(answers, start, end) for start, end in pairwise(ends)]

    def _run(self, batch: list[np.ndarray]) -> list[np.ndarray]:
        # A new binding each time: one that is used again keeps the last batch's output buffers.
        binding = self.session.io_binding()
        for name, tensor in zip(self.inputs, batch):
            binding.bind_cpu_input(name, tensor)
        for name in self.outputs:
            binding.bind_output(name)
        self.session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())

    def _response(self, answers: list[np.ndarray], start: int, end: int) -> pb_utils.InferenceResponse:
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, answer[start:end]) for name, answer in zip(self.outputs, answers)]
        )


def _audit(config: dict[str, Any]) -> Audit | None:
    return Audit(config) if ticket.wanted() and config["name"] in OURS else None


def _checked(config: dict[str, Any], version: Path, graph: str) -> dict[str, Any] | None:
    """Our network's manifest, None for another model; Triton shows what it raises.

    The precision is the version's own: the configuration states that of the newest.
    """
    if config["name"] not in OURS:
        return None
    parameters = config["parameters"]
    stated = {key: value["string_value"] for key, value in parameters.items()}
    manifest = check_version(version, stated, graph)
    parameters["precision"] = {"string_value": manifest["precision"]}
    return manifest


def _input(request: pb_utils.InferenceRequest, name: str) -> np.ndarray:
    return np.asarray(pb_utils.get_input_tensor_by_name(request, name).as_numpy())
