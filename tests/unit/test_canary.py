"""What the canary's router asks of the two versions; with a real Triton: faults/test_rollout.py."""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from derma_semantics.domain.contract import CANDIDATE, NETWORK

MODEL = Path(__file__).resolve().parents[2] / "deploy" / "derma_serving" / "canary" / "model.py"


class Tensor:
    def __init__(self, name, array):
        self._name, self._array = name, array

    def name(self):
        return self._name

    def as_numpy(self):
        return self._array


class Response:
    def __init__(self, tensors=(), error=None):
        self.tensors, self._error = list(tensors), error

    def has_error(self):
        return self._error is not None

    def error(self):
        return self._error


class Error(Exception):
    def message(self):
        return str(self)


class Request:
    """One that came, or one that the router makes: those are kept, and answered by ``answer``."""

    made = []
    answer = None

    def __init__(self, **given):
        self.given = given

    async def async_exec(self):
        self.made.append(self.given)
        return self.answer(self.given)

    def timeout(self):
        return self.given["timeout"]


def tensor_of(holder, name):
    tensors = holder.given["inputs"] if isinstance(holder, Request) else holder.tensors
    return next(one for one in tensors if one.name() == name)


@pytest.fixture
def router(monkeypatch):
    """The model at 50 %, in a Triton whose versions answer zeros."""
    triton = types.ModuleType("triton_python_backend_utils")
    triton.InferenceRequest, triton.InferenceResponse, triton.Tensor = Request, Response, Tensor
    triton.TritonError, triton.TritonModelException = Error, type("TritonModelException", (Exception,), {})
    triton.get_input_tensor_by_name = triton.get_output_tensor_by_name = tensor_of
    triton.PreferredMemory, triton.TRITONSERVER_MEMORY_CPU = (lambda kind: kind), 0
    triton.Logger = types.SimpleNamespace(log_warn=lambda _: None)
    monkeypatch.setitem(sys.modules, triton.__name__, triton)
    monkeypatch.setattr(Request, "made", [])
    monkeypatch.setattr(Request, "answer", staticmethod(zeros))
    spec = importlib.util.spec_from_file_location("derma_canary_model", MODEL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    model.initialize({"model_config": '{"parameters": {"percent": {"string_value": "50"}}}'})
    return model


def zeros(given):
    (pixels,) = given["inputs"]
    return Response(Tensor(name, np.zeros((len(pixels.as_numpy()), 1))) for name in NETWORK.outputs)


def asked(images, timeout):
    return Request(inputs=[Tensor("PIXELS", images)], timeout=timeout)


def pictures(count):
    return np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), np.uint8)


async def test_a_request_s_timeout_goes_with_each_of_its_images(router):
    answers = await router.execute([asked(pictures(16), 250_000), asked(pictures(3)[:1], 0)])
    assert not any(answer.has_error() for answer in answers)
    first = [one for one in Request.made if one["timeout"] == 250_000]
    assert {one["model_name"] for one in first} == {NETWORK.name, CANDIDATE.name}
    assert sum(len(one["inputs"][0].as_numpy()) for one in first) == 16
    assert [one["timeout"] for one in Request.made if one not in first] == [0]


async def test_it_goes_to_the_network_too_where_the_candidate_fails(router, monkeypatch):
    def failing(given):
        return Response(error=Error("broken")) if given["model_name"] == CANDIDATE.name else zeros(given)

    monkeypatch.setattr(Request, "answer", staticmethod(failing))
    (answer,) = await router.execute([asked(pictures(16), 7)])
    assert not answer.has_error()
    assert [one["timeout"] for one in Request.made] == [7] * 3
