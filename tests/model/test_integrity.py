"""What a server checks before it serves a version, and what an export that ended early leaves."""

import json
import shutil
from pathlib import Path

import click.testing
import numpy as np
import pytest

from derma_export.cli import main
from derma_export.exporter import Task, export_bundle
from derma_export.facts import statement
from derma_export.samples import synthetic_samples
from derma_semantics.domain.contract import NETWORK
from derma_semantics.domain.integrity import sha256
from derma_serving import drafts, repository
from derma_serving.runtime.integrity import Tampered, check_answers, check_version, versions
from derma_serving.settings import TEMPLATES
from derma_training.bundle import Bundle, BundleError
from derma_training.network.classifier import Classifier

# The network's own, and one for each profile; only they differ from version to version.
CONFIGURATIONS = len(list((TEMPLATES / NETWORK.name).rglob("*.pbtxt")))
FILES = 1 + len([path for path in TEMPLATES.rglob("*") if path.is_file() and path.suffix != ".pyc"])  # labels
FACTS = {"calibration": '{"review": 0.1}', "card": "{}"}


def values(name, **more):
    digest = name * 64
    return {
        "bundle_name": name,
        "bundle_digest": digest,
        "prompts_digest": digest,
        "precision": "fp32",
        **FACTS,
        **more,
    }


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "graph.onnx"
    path.write_bytes(bytes(range(256)) * 8)
    return path


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def export(models, graph):
    """Installs a version made from a bundle of this name."""

    def install(name):
        told = {**values(name), "graph_digest": sha256(graph), "embedding_size": 8}
        return repository.install(models, graph, told)

    return install


@pytest.fixture
def network(models, export):
    """The network's folder with versions 1, of bundle a, and 2, of bundle b."""
    export("a")
    export("b")
    return models / NETWORK.name


def stated(network):
    return repository.stated(network.parent)


def test_what_was_exported_is_served(network):
    assert [v.name for v in versions(network)] == ["1", "2"]
    assert check_version(network / "2", stated(network))["bundle_name"] == "b"
    assert check_version(network / "1", stated(network))["bundle_name"] == "a"  # as after a rollback


@pytest.mark.parametrize("position", [0, 1000, 2047])
def test_a_flipped_byte_of_the_graph(network, position):
    path = network / "2" / "model.onnx"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(Tampered, match=r"2/model\.onnx is not the graph that was exported: sha256 \w{12}…"):
        check_version(network / "2", stated(network))
    assert check_version(network / "1", stated(network))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00"])
def test_a_damaged_manifest(network, content):
    (network / "2" / "manifest.json").write_text(content)
    with pytest.raises(Tampered, match=r"2/manifest\.json was altered"):
        check_version(network / "2", stated(network))


def test_a_missing_manifest_or_graph(network):
    (network / "1" / "model.onnx").unlink()
    with pytest.raises(FileNotFoundError):
        check_version(network / "1", stated(network))
    (network / "2" / "manifest.json").unlink()
    with pytest.raises(Tampered, match=r"2/manifest\.json is missing: export the bundle again"):
        check_version(network / "2", stated(network))


@pytest.mark.parametrize("key", ["bundle_name", "bundle_digest", "prompts_digest", "precision", *FACTS])
def test_a_swapped_parameter(network, key):
    """In the configuration, or in the manifest: neither is believed alone."""
    with pytest.raises(Tampered, match=f"config.pbtxt of {NETWORK.name} states {key} swapped, version 2 was"):
        check_version(network / "2", {**stated(network), key: "swapped"})
    path = network / "2" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, key: "swapped"}))
    with pytest.raises(Tampered, match=f"states {key} .*, version 2 was exported with swapped"):
        check_version(network / "2", stated(network))


def test_a_configuration_without_parameters(network):
    with pytest.raises(Tampered, match="states bundle_name None"):
        check_version(network / "2", {})


def test_another_version_s_damaged_manifest_harms_only_itself(network):
    (network / "1" / "manifest.json").write_text("{")
    assert check_version(network / "2", stated(network))


class Graph:
    """Answers as ONNX Runtime does, with a digest of its own."""

    def __init__(self, digest):
        self.digest = digest

    def run(self, outputs, inputs):
        assert outputs == ["BUNDLE"]
        assert inputs["PIXELS"].shape == (1, 224, 224, 3) and inputs["PIXELS"].dtype == np.uint8
        return [np.frombuffer(bytes.fromhex(self.digest), np.uint8)[None]]


def test_the_graph_says_itself_which_bundle_it_holds():
    check_answers(Graph("b" * 64), values("b"))
    with pytest.raises(Tampered, match=r"the graph holds bundle a{12}…, its manifest.json says b{12}…"):
        check_answers(Graph("a" * 64), values("b"))


def invoke(*given):
    return click.testing.CliRunner().invoke(main, [str(one) for one in given])


def test_check_says_which_version_was_altered(network):
    done = invoke("--check", "--repository", network.parent)
    assert done.exit_code == 0 and "version 1 is what was exported: a aaaa" in done.output
    (network / "1" / "model.onnx").write_bytes(b"?")
    done = invoke("--check", "--repository", network.parent)
    assert done.exit_code == 1 and "1/model.onnx is not the graph that was exported" in done.output


def manifest_of(bundle, graph):
    """As export writes it, for a graph that nothing ran."""
    made = {"engine": repository.engine_of("fp32").provider, "outputs": list(NETWORK.outputs), "gate": {}}
    told = {"graph_digest": sha256(graph), "embedding_size": 192}
    return {**statement(bundle, "fp32"), **made, **told}


def test_if_needed_does_not_trust_an_altered_version(mini, models, graph):
    bundle = Bundle.open(mini)
    repository.install(models, graph, manifest_of(bundle, graph))
    assert repository.is_newest(models, statement(bundle, "fp32"))
    (models / NETWORK.name / "1" / "model.onnx").write_bytes(b"?")
    with pytest.raises(Tampered, match="is not the graph"):
        repository.is_newest(models, statement(bundle, "fp32"))


def test_a_bundle_altered_while_it_is_exported(mini, tmp_path):
    """The gate has passed, and nothing is written."""
    folder = shutil.copytree(mini, tmp_path / "bundle")
    bundle = Bundle.open(folder)

    def altering(*_):
        text = (folder / "prompts.json").read_text()
        (folder / "prompts.json").write_text(text.replace("melanoma", "nevus"))
        return Classifier.from_bundle(Bundle.open(mini))

    with pytest.raises(BundleError, match=r"prompts\.json was altered"):
        export_bundle(
            bundle, tmp_path / "models", Task(synthetic_samples(2)), say=lambda _: None, run_graph=altering
        )
    assert not (tmp_path / "models").exists()


class Killed(BaseException):
    """Stands for kill -9: nothing is cleaned up."""


def kill_before(monkeypatch, step):
    """Kill at the ``step``-th rename, so that every place between two of them is met."""
    left = [step]
    replace = Path.replace

    def counted(path, target):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", counted)
    monkeypatch.setattr(drafts, "_sweep", lambda folder: None)


RENAMES = [(False, step) for step in range(1 + FILES)] + [(True, step) for step in range(1 + CONFIGURATIONS)]


@pytest.mark.parametrize(("existing", "step"), RENAMES)
def test_a_kill_between_two_renames(models, export, monkeypatch, step, existing):
    """What is there can be served: the configuration states a version that exists."""
    if existing:
        export("a")
    with monkeypatch.context() as patch:
        kill_before(patch, step)
        with pytest.raises(Killed):
            export("b")
    assert list(models.rglob(".*.incoming"))
    found = repository.check(models) if existing else versions(models / NETWORK.name)
    assert len(found) == existing + (existing and step > 0)
    assert export("c") == len(found) + 1
    assert not list(models.rglob(".*.incoming"))
    assert repository.stated(models)["bundle_name"] == "c"


@pytest.mark.parametrize("step", range(2 + CONFIGURATIONS))
def test_a_write_that_fails_changes_nothing(models, export, monkeypatch, step):
    """Each in its turn; the error names the folder."""
    export("a")
    before = {path: path.read_bytes() for path in models.rglob("*") if path.is_file()}
    calls, flush = [], drafts.flush

    def full(*paths):
        calls.append(paths)
        if len(calls) > step:
            raise OSError(28, "No space left on device")
        flush(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(drafts, "flush", full)
        patch.setattr(repository, "flush", full)
        if step > CONFIGURATIONS:  # the last flush is that of what has been renamed
            with pytest.raises(OSError, match="No space left"):
                export("b")
            assert len(repository.check(models)) == 2
            return
        with pytest.raises(OSError, match=f"No space left on device: '{models}'"):
            export("b")
    assert {path: path.read_bytes() for path in models.rglob("*") if path.is_file()} == before
    assert export("b") == 2
