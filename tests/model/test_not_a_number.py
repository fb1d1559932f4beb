"""A RISK that is not a number is urgent in every engine, never routine."""

import pytest
import torch

from derma_export.graph import OnnxClassifier, export_onnx
from derma_serving.runtime.engine import Engine
from derma_training.bundle import Bundle
from derma_training.network.classifier import Classifier


@pytest.fixture(scope="module")
def broken(mini):
    """The committed classifier with one text embedding that is not a number."""
    classifier = Classifier.from_bundle(Bundle.open(mini))
    classifier.text[2, 0] = torch.nan
    return classifier


@pytest.fixture
def pixels():
    seeded = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8, generator=seeded)


@torch.inference_mode()
def test_in_pytorch(broken, pixels):
    answers = broken(pixels)
    assert answers.risk.isnan().all()
    assert answers.triage.tolist() == [[2], [2]]


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_in_the_exported_graph(broken, pixels, provider, tmp_path):
    export_onnx(broken, tmp_path / "model.onnx")
    answers = OnnxClassifier(tmp_path / "model.onnx", Engine(provider))(pixels)
    assert answers.risk.isnan().all()
    assert answers.triage.tolist() == [[2], [2]]
