"""A graph that is kept without its bundle's weights becomes the exported file again, or an error."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch

from derma_export import gate
from derma_export.facts import statement
from derma_export.graph import OnnxClassifier
from derma_export.kept import keep
from derma_export.samples import synthetic_samples
from derma_semantics.domain.contract import NETWORK
from derma_serving import default
from derma_serving.graphs import PARTS, REST, assembled, folded
from derma_serving.repository import check, stated
from derma_serving.runtime.integrity import GRAPH, Tampered
from derma_serving.settings import BUNDLE, KEPT_GRAPH
from derma_serving.version_store import withdraw
from derma_training.bundle import Bundle

KEPT = KEPT_GRAPH / "fp32"


@pytest.fixture(scope="module")
def graph():
    return assembled(KEPT, BUNDLE)


def structure(content):
    """What a graph computes and under which names, without its weights."""
    graph = onnx.load_model_from_string(content).graph
    return [(node.op_type, list(node.input), list(node.output)) for node in graph.node]


def test_the_committed_graph_is_that_of_the_committed_bundle(mini, exported, graph):
    """If not: `make graph`, and commit training/graphs."""
    manifest = json.loads((KEPT / "manifest.json").read_text())
    bundle = Bundle.open(mini)
    assert mini == BUNDLE
    assert {key: manifest[key] for key in statement(bundle, "fp32")} == statement(bundle, "fp32")
    anew = exported / NETWORK.name / "1"
    assert structure(graph) == structure((anew / GRAPH).read_bytes())
    now = json.loads((anew / "manifest.json").read_text())
    same = ("outputs", "opset", "engine", "embedding_size", "files", "fused", "kept")
    assert [manifest[key] for key in same] == [now[key] for key in same]


def test_it_answers_as_a_graph_that_is_exported_anew(exported, graph, tmp_path):
    """Their bits may differ: PyTorch embeds the definitions in an order that the processor decides."""
    (tmp_path / GRAPH).write_bytes(graph)
    pixels = synthetic_samples(16).pixels
    answers = [
        gate.in_batches(OnnxClassifier(path), pixels)
        for path in (exported / NETWORK.name / "1" / GRAPH, tmp_path / GRAPH)
    ]
    report = gate.compare(*answers, gate.LIMITS["fp32"])
    assert not report.failures
    assert report.probability < 1e-5


def test_it_holds_no_weights(graph):
    """So that they are committed once."""
    assert sum(path.stat().st_size for path in KEPT.iterdir()) < len(graph) / 8


def test_the_file_is_kept_bit_for_bit(exported, mini, tmp_path):
    version = exported / NETWORK.name / "1"
    size = keep(version, mini, tmp_path / "kept")
    assert size == sum(path.stat().st_size for path in (tmp_path / "kept").iterdir())
    assert assembled(tmp_path / "kept", mini) == (version / GRAPH).read_bytes()


def break_rest(kept, bundle):
    path = kept / REST
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def cut_parts(kept, bundle):
    (kept / PARTS).write_text('{"parts": [')


def name_another_tensor(kept, bundle):
    path = kept / PARTS
    path.write_text(path.read_text().replace("visual.trunk.pos_embed", "visual.trunk.nothing"))


def change_a_weight(kept, bundle):
    path = bundle / "adapter" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_the_weights(kept, bundle):
    path = bundle / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (break_rest, "do not give the graph that was exported"),
        (cut_parts, "cannot be put together.*is not JSON"),
        (name_another_tensor, "cannot be put together.*nothing"),
        (change_a_weight, "do not give the graph that was exported"),
        (cut_the_weights, "cannot be put together"),
    ],
)
def test_what_was_altered_gives_no_graph(tmp_path, change, words):
    kept, bundle = shutil.copytree(KEPT, tmp_path / "kept"), shutil.copytree(BUNDLE, tmp_path / "bundle")
    change(kept, bundle)
    with pytest.raises(Tampered, match=words):
        assembled(kept, bundle)


def test_folding_is_the_update_of_lora_and_the_same_in_any_layout():
    numbers = np.random.default_rng(0)
    weight, a, b = (
        numbers.standard_normal(shape).astype(np.float32) for shape in ((48, 40), (16, 40), (48, 16))
    )
    found = folded(weight, a, b, 2.0)
    exact = (
        torch.from_numpy(weight).double() + 2 * torch.from_numpy(b).double() @ torch.from_numpy(a).double()
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact.numpy(), rtol=1e-6, atol=1e-6)
    turned = folded(weight, np.asfortranarray(a), np.asfortranarray(b), 2.0)
    assert turned.tobytes() == found.tobytes()


@pytest.fixture
def provided(tmp_path):
    said = []
    default.provide(tmp_path / "models", say=said.append, warn=said.append)
    assert "version 1" in said.pop() and not said
    return tmp_path / "models"


def test_the_default_model_is_installed_once(provided, mini):
    assert check(provided).keys() == {"1"}
    assert stated(provided)["bundle_digest"] == Bundle.open(mini).digest
    said = []
    default.provide(provided, say=said.append, warn=said.append)
    assert len(said) == 1 and said[0].endswith("already")
    assert check(provided).keys() == {"1"}


def test_one_that_was_withdrawn_stays_away_while_another_serves(provided):
    folder = provided / NETWORK.name
    other = shutil.copytree(folder / "1", folder / "2")
    manifest = json.loads((other / "manifest.json").read_text()) | {"bundle_digest": "0" * 64, "version": 2}
    (other / "manifest.json").write_text(json.dumps(manifest))
    withdraw(provided, folder / "1", "it was bad")
    warned = []
    default.provide(provided, say=print, warn=warned.append)
    assert len(warned) == 1 and "was withdrawn (it was bad)" in warned[0]
    assert not (folder / "3").exists()
