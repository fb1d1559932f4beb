"""The hand-written Triton configurations say what the contract says."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from derma_export.repository import parameters
from derma_semantics import contract
from derma_semantics.conditions import CODES, CONDITIONS, RiskLevel, by_code
from derma_training.bundle import Bundle

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"
TYPES = {"BYTES": "TYPE_STRING"}


def read_config(model: contract.Model):
    text = (REPOSITORY / model.name / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def tensors(entries):
    return {e.name: (model_config_pb2.DataType.Name(e.data_type), tuple(e.dims)) for e in entries}


def expected(entries):
    return {
        name: (TYPES.get(t.datatype, f"TYPE_{t.datatype}"), tuple(t.shape)) for name, t in entries.items()
    }


@pytest.mark.parametrize("model", contract.MODELS, ids=lambda m: m.name)
def test_config_matches_contract(model):
    config = read_config(model)
    assert config.name == model.name
    assert (config.backend or config.platform) == model.backend
    assert config.max_batch_size == contract.MAX_BATCH
    assert tensors(config.input) == expected(model.inputs)
    outputs = tensors(config.output)
    if model is contract.NETWORK:  # its embedding has the served bundle's size
        kind, (size,) = outputs.pop("EMBEDDING")
        assert kind == "TYPE_FP32"
        assert size > 0
        assert outputs == {k: v for k, v in expected(model.outputs).items() if k != "EMBEDDING"}
    else:
        assert outputs == expected(model.outputs)


@pytest.mark.parametrize("model", [contract.PREPROCESS, contract.NETWORK], ids=lambda m: m.name)
def test_queues_are_bounded_and_reject(model):
    policy = read_config(model).dynamic_batching.default_queue_policy
    assert policy.max_queue_size > 0
    assert policy.default_timeout_microseconds > 0
    assert policy.timeout_action == model_config_pb2.ModelQueuePolicy.REJECT


def test_network_warms_up_the_largest_batch():
    sizes = {warmup.batch_size for warmup in read_config(contract.NETWORK).model_warmup}
    assert {1, contract.MAX_BATCH} <= sizes


def test_committed_config_describes_the_committed_bundle(mini):
    """So that exporting the default bundle leaves the working tree clean."""
    config = read_config(contract.NETWORK)
    served = {key: value.string_value for key, value in config.parameters.items()}
    assert served == parameters(Bundle.open(mini))
    assert set(served) == set(contract.PARAMETERS)


def test_labels_are_the_condition_codes():
    labels = (REPOSITORY / contract.NETWORK.name / "labels.txt").read_text().split()
    assert tuple(labels) == CODES == ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


def test_conditions():
    assert by_code("BCC").name == "basal cell carcinoma"
    with pytest.raises(ValueError, match="'XYZ'.*MEL"):
        by_code("XYZ")
    levels = {c.code: c.risk for c in CONDITIONS if c.malignant}
    assert levels == {"MEL": RiskLevel.HIGH, "BCC": RiskLevel.HIGH, "AKIEC": RiskLevel.PREMALIGNANT}
    assert all(len(set(c.prompts)) >= 3 for c in CONDITIONS)
