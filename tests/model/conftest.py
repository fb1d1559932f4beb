"""A KServe service in this process: real gRPC, made-up answers."""

import threading
from concurrent import futures

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc

from derma_semantics.domain.contract import CLASSIFIER

DIGEST = "ab" * 32
TYPES = {np.float32: "FP32", np.int32: "INT32", np.bool_: "BOOL", np.uint8: "UINT8"}


def answers():
    probabilities = np.full(7, 0.05, np.float32)
    probabilities[2] = 0.7
    return {
        "PROBABILITIES": probabilities,
        "RISK": np.array([0.8], np.float32),
        "TRIAGE": np.array([2], np.int32),
        "PREDICTION_SET": probabilities > 0.5,
        "QUALITY": np.array([True, False, False, True]),
        "EMBEDDING": np.ones(4, np.float32) / 2,
        "BUNDLE": np.frombuffer(bytes.fromhex(DIGEST), np.uint8),
    }


class KServe(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Counts requests, keeps their metadata and timeouts, and fails as it is told.

    Attributes:
        refusals: (status, message) of the next answers; then it answers.
        answers: what it says of every image.
        gate: requests wait for it; ``begun`` counts those that came, ``gone`` those given up by the client.
    """

    def __init__(self):
        self.asked, self.begun, self.gone = 0, 0, 0
        self.images, self.metadata, self.refusals, self.ids, self.timeouts = [], [], [], [], []
        self.answers = answers()
        self.configs, self.steps = 0, []
        self.gate = threading.Event()
        self.gate.set()
        self.lock = threading.Lock()

    def ModelInfer(self, request, context):
        with self.lock:
            self.begun += 1
            self.metadata.append(dict(context.invocation_metadata()))
            self.images.append(request.raw_input_contents[0][4:])
            self.ids.append(request.id)
            self.timeouts.append(request.parameters["timeout"].int64_param)
            refusal = self.refusals.pop(0) if self.refusals else None
        while not self.gate.wait(0.01):
            if not context.is_active():
                with self.lock:
                    self.gone += 1
                context.abort(grpc.StatusCode.CANCELLED, "gone")
        if refusal:
            context.abort(*refusal)
        with self.lock:
            self.asked += 1
        response = messages.ModelInferResponse(model_name=request.model_name)
        for name, array in self.answers.items():
            kind = TYPES[array.dtype.type]
            response.outputs.add(name=name, datatype=kind, shape=[1, *array.shape])
            response.raw_output_contents.append(array.tobytes())
        return response

    def ModelReady(self, request, context):
        return messages.ModelReadyResponse(ready=request.name == CLASSIFIER.name)

    def ModelMetadata(self, request, context):
        return messages.ModelMetadataResponse(name=request.name, versions=["2", "10"])

    def ModelConfig(self, request, context):
        answer = messages.ModelConfigResponse()
        answer.config.name = request.name
        answer.config.parameters["bundle_name"].string_value = "mini"
        answer.config.parameters["bundle_digest"].string_value = DIGEST
        answer.config.ensemble_scheduling.step.extend(self.steps)
        self.configs += 1
        return answer


@pytest.fixture
def kserve():
    """Start services on 127.0.0.1: ``service, port, stop = kserve(credentials, port)``."""
    servers, services = [], []

    def start(credentials=None, port=0):
        server, service = grpc.server(futures.ThreadPoolExecutor(24)), KServe()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
        address = f"127.0.0.1:{port}"
        port = (
            server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        )
        server.start()
        servers.append(server)
        services.append(service)
        return service, port, lambda: server.stop(0).wait(10)

    yield start
    for service in services:
        service.gate.set()
    for server in servers:
        server.stop(0).wait(10)
