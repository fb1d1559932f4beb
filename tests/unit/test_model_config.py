"""One module reads and writes config.pbtxt, and what it writes says the same."""

import re
from pathlib import Path

import pytest

from derma_semantics.domain.contract import MODELS, NETWORK
from derma_serving import drafts
from derma_serving.model_config import (
    located,
    parameters,
    parse,
    profiles,
    read,
    serves_highest,
    set_parameters,
    set_sizes,
    steps,
    to_dict,
    write,
)
from derma_serving.settings import TEMPLATES

ROOT = Path(__file__).resolve().parents[2]
STRANGE = {"card": 'a "b" \\ c\nd \\" é', "calibration": "\\", "empty": ""}


@pytest.fixture
def network():
    return read(TEMPLATES / NETWORK.name / "config.pbtxt")


def test_what_is_written_is_read_again(network, tmp_path):
    set_parameters(network, STRANGE)
    set_sizes(network, NETWORK, 512)
    write(tmp_path / "config.pbtxt", network)
    again = read(tmp_path / "config.pbtxt")
    assert again == network
    assert {key: parameters(again)[key] for key in STRANGE} == STRANGE
    assert next(one for one in to_dict(again)["output"] if one["name"] == "EMBEDDING")["dims"] == ["512"]
    assert [path.name for path in tmp_path.iterdir()] == ["config.pbtxt"]


def test_a_write_that_fails_leaves_what_was_there(network, tmp_path, monkeypatch):
    path = tmp_path / "config.pbtxt"
    write(path, network)
    before = path.read_bytes()
    set_parameters(network, STRANGE)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drafts, "flush", full)
    with pytest.raises(OSError, match="No space left"):
        write(path, network)
    assert path.read_bytes() == before


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "config.pbtxt"
    path.write_text("max_batch: 4")
    with pytest.raises(ValueError, match=rf"{path} is not a model configuration: 1:1 .*: max_batch: 4"):
        read(path)


def test_a_profile_replaces_the_configuration_of_models_that_have_it(tmp_path):
    (tmp_path / "configs").mkdir()
    for name in ("cuda", "None"):
        (tmp_path / "configs" / f"{name}.pbtxt").touch()
    assert located(tmp_path, "cuda") == tmp_path / "configs" / "cuda.pbtxt"
    assert located(tmp_path, "tensorrt") == located(tmp_path) == tmp_path / "config.pbtxt"
    assert [path.stem for path in profiles(tmp_path)] == ["None", "cuda"]


def test_a_policy_and_steps_are_read():
    assert serves_highest(parse("", "test"))
    assert not serves_highest(parse("version_policy { latest { num_versions: 2 } }", "test"))
    ensemble = read(TEMPLATES / MODELS[0].name / "config.pbtxt")
    assert list(steps(ensemble)) == ["derma_preprocess", NETWORK.name]


def test_no_other_module_parses_configurations():
    folders = ("client", "deploy", "training", "export", "saliency_service", "benchmarks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    parsing = re.compile(r"text_format|model_config_pb2")
    assert [p.name for p in files if parsing.search(p.read_text())] == ["model_config.py"]
