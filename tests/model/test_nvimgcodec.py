"""The option ``decoder: nvimgcodec`` of derma_preprocess: one call a batch, and clear refusals to load."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from derma_bench.hardware import gpus
from derma_semantics.domain.contract import MAX_BATCH, MAX_PIXELS
from derma_semantics.imaging.preprocess import PIXEL_TOLERANCE, preprocess
from derma_serving.runtime.nvimgcodec import PIXELS_AT_ONCE, Decoder, _parts

MODEL = Path(__file__).resolve().parents[2] / "model_repository" / "derma_preprocess" / "1" / "model.py"


class Response:
    def __init__(self, tensors=(), error=None):
        self.tensors, self.error = tensors, error


class Request:
    def __init__(self, *images):
        self.images = images

    def as_numpy(self):
        return np.array([[image] for image in self.images], np.object_)


@pytest.fixture
def log():
    return []


@pytest.fixture
def model(monkeypatch, log):
    """The model's module, with what Triton's Python backend brings."""
    error = type("TritonError", (), {"INVALID_ARG": "invalid", "INTERNAL": "internal"})
    error.__init__ = lambda self, message, code: vars(self).update(message=message, code=code)
    backend = SimpleNamespace(
        get_input_tensor_by_name=lambda request, name: request,
        InferenceRequest=Request,
        InferenceResponse=Response,
        Logger=SimpleNamespace(log_warn=log.append),
        Tensor=lambda name, pixels: pixels,
        TritonError=error,
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)
    spec = importlib.util.spec_from_file_location("derma_preprocess_model", MODEL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(module, decoder=None, kind="CPU"):
    parameters = {"decoder": {"string_value": decoder}} if decoder else {}
    model = module.TritonPythonModel()
    config = json.dumps({"parameters": parameters})
    device = {"model_instance_kind": kind, "model_instance_device_id": "0"}
    model.initialize({"model_config": config, **device})
    return model


class Fake:
    """Takes what starts as JPEG does, and notes each call."""

    def __init__(self):
        self.calls = []

    def preprocess(self, images):
        self.calls.append(list(images))
        return [np.full((224, 224, 3), 7, np.uint8) if i.startswith(b"\xff\xd8") else None for i in images]


def test_by_default_pillow_decodes(model, jpeg, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia", None)
    (response,) = started(model).execute([Request(jpeg(0))])
    assert (response.tensors[0][0] == preprocess(jpeg(0))).all()


def test_all_requests_of_a_batch_are_one_call(model, jpeg, png):
    served = started(model)
    served.decoder = Fake()
    bad = b"this is text"
    first, second, third = served.execute([Request(jpeg(0), png), Request(bad), Request(jpeg(1))])
    assert served.decoder.calls == [[jpeg(0), png, bad, jpeg(1)]]
    assert (first.tensors[0][0] == 7).all() and (third.tensors[0][0] == 7).all()
    assert (first.tensors[0][1] == preprocess(png)).all()
    assert second.error.code == "invalid" and "UnsupportedFormat" in second.error.message


def test_if_the_decoder_fails_pillow_answers(model, jpeg, log):
    def broken(images):
        raise RuntimeError("out of memory")

    served = started(model)
    served.decoder = SimpleNamespace(preprocess=broken)
    good, bad = served.execute([Request(jpeg(0)), Request(jpeg(0)[:3000])])
    assert (good.tensors[0][0] == preprocess(jpeg(0))).all()
    assert "CorruptImage" in bad.error.message
    assert len(log) == 1 and "out of memory" in log[0]


def test_a_missing_package_is_named_at_load(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia", None)
    with pytest.raises(ImportError, match=r"nvidia-nvimgcodec.*derma-semantics\[nvimgcodec\]"):
        started(model, "nvimgcodec")


def test_an_unknown_decoder_is_refused_at_load(model):
    with pytest.raises(ValueError, match="unknown decoder 'dali': choose from pillow, nvimgcodec"):
        started(model, "dali")


def test_without_a_gpu_an_instance_for_one_is_refused_at_load(model):
    pytest.importorskip("nvidia.nvimgcodec", reason="nvidia-nvimgcodec is not installed")
    if gpus():
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match="decoder"):
        started(model, "nvimgcodec", kind="GPU")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (lambda image: preprocess(image) ^ np.uint8(PIXEL_TOLERANCE + 2), "away from Pillow; the limit is 2"),
        (lambda image: None, "on GPU 3 decodes no JPEG"),
    ],
)
def test_a_decoder_that_is_wrong_is_refused(found, words):
    class Wrong(Decoder):
        def __init__(self):
            self.where = "nvImageCodec on GPU 3"

        def preprocess(self, images):
            return [found(image) for image in images]

    with pytest.raises(RuntimeError, match=words):
        Wrong().check()


def test_the_largest_images_are_decoded_in_several_calls():
    largest, small = Image.new("1", (MAX_PIXELS // 5000, 5000)), Image.new("1", (600, 450))
    assert [len(part) for part in _parts(enumerate([largest] * 20), PIXELS_AT_ONCE)] == [8, 8, 4]
    assert len(list(_parts(enumerate([small] * MAX_BATCH), PIXELS_AT_ONCE))) == 1
    assert [len(part) for part in _parts(enumerate([small, largest, small]), 1)] == [1, 1, 1]
    assert list(_parts([], PIXELS_AT_ONCE)) == []


@pytest.fixture
def png(picture, tmp_path):
    picture(2).save(tmp_path / "a.png")
    return (tmp_path / "a.png").read_bytes()
