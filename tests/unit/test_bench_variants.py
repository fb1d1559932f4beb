"""A variant changes what its snippet states, in a copy, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from derma_bench.servers.variants import Variant, copy, merged
from derma_serving.model_config import parameters, parse, to_text

BASE = """
name: "derma_biomedclip"
max_batch_size: 32
instance_group [ { kind: KIND_AUTO count: 1 } ]
dynamic_batching { preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 500 }
parameters { key: "precision" value { string_value: "fp32" } }
parameters { key: "bundle_name" value { string_value: "derma-mini" } }
"""
DELAY = Variant("delay 1 ms", "dynamic_batching { max_queue_delay_microseconds: 1000 }")


def parsed(text: str) -> Any:
    return parse(text, "test")


def changed(snippet: str) -> Any:
    return merged(parsed(BASE), Variant("changed", snippet))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two models; the network has a profile, a graph, and what a crash left behind."""
    folder = tmp_path / "model_repository"
    network = folder / "derma_biomedclip"
    (network / "configs").mkdir(parents=True)
    (network / "config.pbtxt").write_text(BASE)
    (network / "configs" / "cuda.pbtxt").write_text(BASE.replace("KIND_AUTO", "KIND_GPU"))
    for version in ("1", ".incoming-x"):
        (network / version).mkdir()
        (network / version / "model.onnx").write_bytes(b"a graph")
    (folder / "derma_classifier" / "1").mkdir(parents=True)  # empty, as an ensemble's version is
    (folder / "derma_classifier" / "config.pbtxt").write_text('name: "derma_classifier"')
    (folder / "derma_preprocess").mkdir()
    (folder / "derma_preprocess" / "config.pbtxt").write_text('name: "derma_preprocess"')
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_a_snippet_states_is_replaced_and_the_rest_stays() -> None:
    expected = parsed(BASE)
    expected.dynamic_batching.max_queue_delay_microseconds = 1000
    assert changed(DELAY.snippet) == expected


def test_lists_are_replaced_and_not_added_to() -> None:
    found = changed(
        "instance_group [ { count: 2 }, { count: 3 } ] dynamic_batching { preferred_batch_size: 4 }"
    )
    assert [group.count for group in found.instance_group] == [2, 3]
    assert list(found.dynamic_batching.preferred_batch_size) == [4]
    assert found.dynamic_batching.max_queue_delay_microseconds == 500


def test_a_stated_zero_counts() -> None:
    assert changed("dynamic_batching { max_queue_delay_microseconds: 0 }") == parsed(
        BASE.replace("max_queue_delay_microseconds: 500", "")
    )


def test_parameters_are_replaced_by_their_key() -> None:
    found = changed('parameters { key: "precision" value { string_value: "bf16" } }')
    assert parameters(found) == {"precision": "bf16", "bundle_name": "derma-mini"}


def test_what_is_not_stated_can_be_added() -> None:
    found = changed('model_warmup { name: "one" batch_size: 1 } response_cache { enable: true }')
    assert found.model_warmup[0].name == "one"
    assert found.response_cache.enable


@pytest.mark.parametrize("snippet", ["dynamic_batching {", "max_batch: 4", 'max_batch_size: "four"'])
def test_a_snippet_that_does_not_parse_is_told_by_name(snippet: str) -> None:
    with pytest.raises(ValueError, match=r"variant 'changed' is not a model configuration: 1:\d+"):
        changed(snippet)


@pytest.mark.parametrize(
    "snippet", ["", "# nothing", "max_batch_size: 32", "dynamic_batching { preferred_batch_size: [ 8 ] }"]
)
def test_a_snippet_that_changes_nothing_is_told_by_name(snippet: str) -> None:
    with pytest.raises(ValueError, match="variant 'changed' changes nothing"):
        changed(snippet)


def test_only_the_networks_configuration_differs_and_only_in_the_copy(
    repository: Path, tmp_path: Path
) -> None:
    before = contents(repository)
    models = copy(repository, DELAY, tmp_path / "state" / "models")
    assert contents(repository) == before
    config = models / "derma_biomedclip" / "config.pbtxt"
    assert parsed(config.read_text()) == changed(DELAY.snippet)
    after = contents(models)
    del before["derma_biomedclip/.incoming-x/model.onnx"]
    assert set(after) == set(before)
    assert [name for name in after if after[name] != before[name]] == ["derma_biomedclip/config.pbtxt"]
    assert (models / "derma_classifier" / "1").is_dir()
    graph = models / "derma_biomedclip" / "1" / "model.onnx"
    assert graph.resolve() == (repository / "derma_biomedclip" / "1" / "model.onnx").resolve()


def test_a_profile_is_changed_where_it_is_what_is_served(repository: Path, tmp_path: Path) -> None:
    models = copy(repository, DELAY, tmp_path / "models", profile="cuda")
    found = parsed((models / "derma_biomedclip" / "configs" / "cuda.pbtxt").read_text())
    assert found.dynamic_batching.max_queue_delay_microseconds == 1000
    assert "KIND_GPU" in to_text(found)
    assert (models / "derma_biomedclip" / "config.pbtxt").read_text() == BASE


def test_a_snippet_with_a_models_name_changes_that_model(repository: Path, tmp_path: Path) -> None:
    variant = Variant("one decoder", 'name: "derma_preprocess" instance_group { kind: KIND_CPU count: 1 }')
    models = copy(repository, variant, tmp_path / "models")
    assert parsed((models / "derma_preprocess" / "config.pbtxt").read_text()).instance_group[0].count == 1
    assert (models / "derma_biomedclip" / "config.pbtxt").read_text() == BASE


def test_a_model_that_the_repository_lacks_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"derma_biomedclip/config\.pbtxt"):
        copy(tmp_path, DELAY, tmp_path / "models")
