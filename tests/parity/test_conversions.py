"""Each conversion of the network keeps its answers: LoRA merge and ONNX."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from derma_export import gate
from derma_export.graph import OnnxClassifier, export_onnx
from derma_export.merge import merged
from derma_export.samples import synthetic_samples
from derma_training import data
from derma_training.bundle import Bundle, seal
from derma_training.network.classifier import Classifier


@pytest.fixture(scope="module")
def bundle(mini):
    return Bundle.open(mini)


@pytest.fixture(scope="module")
def classifier(bundle):
    return Classifier.from_bundle(bundle)


@pytest.fixture(scope="module")
def onnx(classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_onnx(classifier, path)
    return OnnxClassifier(path)


@pytest.fixture(scope="module")
def pixels():
    return synthetic_samples(12).pixels


def test_merge(bundle, classifier, pixels):
    own, moved = merged(bundle, pixels)
    assert 0 < moved <= 1e-5
    with torch.inference_mode():
        for one, other in zip(own(pixels), classifier(pixels), strict=True):
            assert torch.allclose(one.float(), other.float(), rtol=0, atol=1e-6)


def test_merge_is_not_a_no_op(bundle, classifier, pixels):
    """The adapter matters: without it the embeddings are others."""
    from derma_training.network.model import build_model

    with torch.inference_mode():
        base = build_model(bundle.path).encode_image(classifier.normalise(pixels), normalize=True)
        assert (base - classifier(pixels).embedding).abs().max() > 1e-3


def test_an_adapter_that_changes_nothing_fails_the_gate(mini, pixels, tmp_path):
    copy = shutil.copytree(mini, tmp_path / "copy")
    path = copy / "adapter" / "adapter_model.safetensors"
    tensors = load_file(str(path))
    save_file({n: torch.zeros_like(t) if "lora_B" in n else t for n, t in tensors.items()}, str(path))
    with pytest.raises(gate.GateFailed, match="the adapter of untrained changes no embedding"):
        merged(seal(copy, name="untrained"), pixels)


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_onnx_for_every_batch_size(classifier, onnx, pixels, size):
    with torch.inference_mode():
        report = gate.compare(classifier(pixels[:size]), onnx(pixels[:size]), gate.LIMITS["fp32"])
    assert report.failures == []


def test_onnx_does_not_depend_on_the_batch(onnx, pixels):
    together = onnx(pixels).probabilities
    alone = torch.cat([onnx(pixels[i : i + 1]).probabilities for i in range(len(pixels))])
    assert (together - alone).abs().max() < 1e-6


def test_onnx_on_real_photographs(classifier, onnx, isic2018):
    examples = data.read(isic2018)[::150]
    pixels = data.load_pixels(examples)
    with torch.inference_mode():
        report = gate.compare(classifier(pixels), onnx(pixels), gate.LIMITS["fp32"])
    assert report.failures == []
