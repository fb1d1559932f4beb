"""Which version lies where after each step of a roll-out; the real thing is in faults/test_rollout.py."""

import json

import click.testing
import numpy as np
import pytest

from derma_export import cli
from derma_export.facts import statement
from derma_export.rollout.cli import main
from derma_export.rollout.flow import Rollout, RolloutFailed, listed
from derma_semantics.domain.contract import CANARY, CANDIDATE, CLASSIFIER, NETWORK, PREPROCESS
from derma_semantics.domain.errors import ServiceError
from derma_semantics.domain.integrity import sha256
from derma_serving import repository, router
from derma_serving import version_store as store
from derma_serving.model_config import read, set_sizes, steps
from derma_serving.repository import install, withdrawn
from derma_serving.runtime.integrity import check_version, read_manifest, versions
from derma_serving.runtime.lock import locked
from derma_serving.settings import TEMPLATES
from derma_training.bundle import Bundle

A, B, C = ("aa" * 32, "bb" * 32, "cc" * 32)


class Server:
    """Serves a repository as Triton does: the highest version there is when it loads."""

    def __init__(self, models):
        self.models, self.serving, self.refuse, self.answers = models, {}, set(), {}
        self.keeps_log, self.looks = False, True

    def load(self, model):
        folder = self.models / model
        if model in (NETWORK.name, CANDIDATE.name):
            manifest = read_manifest(versions(folder)[-1])
            if (model, manifest["bundle_digest"]) in self.refuse:
                raise ServiceError(f"load failed for model '{model}'")
            if model == NETWORK.name and self.looks:
                check_version(versions(folder)[-1], repository.stated(self.models))
            self.serving[model] = manifest["bundle_digest"]
        else:
            self.serving[model] = steps(read(folder / "config.pbtxt"))

    def unload(self, model):
        del self.serving[model]

    def index(self):
        return [{"name": name, "state": "READY"} for name in self.serving]

    def audited(self):
        return self.keeps_log

    def infer(self, model, pixels):
        assert not self.keeps_log
        digest = self.answers.get(model.name, self.serving[model.name])
        return {"BUNDLE": np.frombuffer(bytes.fromhex(digest), np.uint8)[None]}

    def classify(self, image):
        assert CANARY.name not in self.serving[CLASSIFIER.name]
        digest = self.answers.get(NETWORK.name, self.serving[NETWORK.name])
        return type("Answer", (), {"bundle": type("Bundle", (), {"digest": digest})})


@pytest.fixture(autouse=True)
def checkout():
    """What people wrote stays as it is, whatever is rolled out."""

    def written():
        return {path: path.read_bytes() for path in TEMPLATES.rglob("*") if path.is_file()}

    before = written()
    yield
    assert written() == before


class Agrees:
    def require(self, infer):
        infer(np.zeros((1, 224, 224, 3), np.uint8))


@pytest.fixture
def export(mini, tmp_path):
    """Makes versions that hold no graph worth the name."""
    bundle, models = Bundle.open(mini), tmp_path / "models"
    graph = tmp_path / "graph.onnx"

    def make(digest, model=CANDIDATE):
        graph.write_text(digest)
        told = {**statement(bundle, "fp32"), "bundle_digest": digest, "graph_digest": sha256(graph)}
        return install(models, graph, {**told, "embedding_size": 192}, model)

    make(A, NETWORK)
    return make


@pytest.fixture
def server(export, tmp_path):
    server = Server(tmp_path / "models")
    for model in (NETWORK.name, CLASSIFIER.name):
        server.load(model)
    return server


@pytest.fixture
def rollout(server):
    return Rollout(server.models, server, server, say=lambda _: None)


def roll(rollout, export, digest, share=None):
    rollout.start(lambda: export(digest), lambda _: Agrees(), share)


def numbers(folders):
    return [folder.name for folder in folders]


def lying(models):
    """Numbers of the versions: in service or below it, withdrawn."""
    return numbers(versions(models / NETWORK.name)), numbers(withdrawn(models))


def stated(models):
    return repository.stated(models)["bundle_digest"]


def test_out_and_back(rollout, server, export):
    roll(rollout, export, B)
    assert (server.serving[NETWORK.name], stated(server.models)) == (B, B)
    assert lying(server.models) == (["1", "2"], [])
    assert not (server.models / CANDIDATE.name).exists()
    rollout.back()
    assert (server.serving[NETWORK.name], stated(server.models)) == (A, A)
    assert lying(server.models) == (["1"], ["2"])
    assert any("withdrawn: rolled back to version 1" in line for line in listed(server.models))
    roll(rollout, export, C)
    assert lying(server.models) == (["1", "3"], ["2"])  # a number is given once
    rollout.back(2)
    assert (server.serving[NETWORK.name], stated(server.models)) == (B, B)
    assert lying(server.models) == (["1", "2"], ["3"])
    with pytest.raises(RolloutFailed, match="version 2 serves already"):
        rollout.back(2)
    with pytest.raises(RolloutFailed, match="there is no version 9; there are 1, 2, 3"):
        rollout.back(9)
    rollout.back()
    with pytest.raises(RolloutFailed, match="version 1 is the only one that can serve"):
        rollout.back()


def test_a_service_with_an_audit_log_is_refused_before_anything_is_made(rollout, server, export):
    server.keeps_log = True
    with pytest.raises(RolloutFailed, match="keeps an audit log.*derma-export BUNDLE --load"):
        roll(rollout, export, B)
    assert lying(server.models) == (["1"], [])


def test_a_service_with_an_audit_log_rolls_back(rollout, server, export):
    """Where only the public model answers."""
    export(B, NETWORK)
    server.load(NETWORK.name)
    server.keeps_log = True
    rollout.back()
    assert (server.serving[NETWORK.name], stated(server.models)) == (A, A)
    server.answers[NETWORK.name] = C
    with pytest.raises(RolloutFailed, match="derma_classifier answers with bundle cccccccccccc"):
        rollout.back(2)


@pytest.mark.parametrize("step", ["promote", "abort", "back"])
def test_a_canary_is_not_ended_where_the_server_reads_a_copy(rollout, server, export, step):
    roll(rollout, export, B, 20)
    before = dict(server.serving)
    server.keeps_log = True
    with pytest.raises(RolloutFailed, match="keeps an audit log"):
        getattr(rollout, step)()
    assert server.serving == before
    assert (server.models / CANDIDATE.name).exists()


def test_a_candidate_that_does_not_load_never_reaches_the_network(rollout, server, export):
    server.refuse.add((CANDIDATE.name, B))
    with pytest.raises(RolloutFailed, match="version 2 was refused; version 1 serves on: load failed"):
        roll(rollout, export, B)
    assert server.serving[NETWORK.name] == A
    assert lying(server.models) == (["1"], ["2"])


@pytest.mark.parametrize("where", [CANDIDATE, NETWORK])
def test_answers_of_another_bundle_are_refused(rollout, server, export, where):
    server.answers[where.name] = C
    with pytest.raises(RolloutFailed, match=r"answers with bundle cccccccccccc, not bbbbbbbbbbbb"):
        roll(rollout, export, B)
    assert (server.serving[NETWORK.name], stated(server.models)) == (A, A)
    assert lying(server.models) == (["1"], ["2"])


def test_answers_that_differ_are_refused(rollout, server, export):
    class Differs:
        def require(self, infer):
            raise ValueError("probabilities differ by 0.2")

    with pytest.raises(RolloutFailed, match="version 1 serves on: probabilities differ"):
        rollout.start(lambda: export(B), lambda _: Differs())
    assert server.serving[NETWORK.name] == A


def test_a_network_that_does_not_load_returns_to_the_version_before(rollout, server, export):
    server.refuse.add((NETWORK.name, B))
    with pytest.raises(RolloutFailed, match="version 2 was refused; version 1 serves on"):
        roll(rollout, export, B)
    assert (server.serving[NETWORK.name], stated(server.models)) == (A, A)
    assert lying(server.models) == (["1"], ["2"])
    assert "refused" in store.reason_of(withdrawn(server.models)[0])


def test_a_failed_roll_back_changes_nothing(rollout, server, export):
    roll(rollout, export, B)
    server.refuse.add((NETWORK.name, A))
    with pytest.raises(RolloutFailed, match="version 1 was refused; version 2 serves on"):
        rollout.back()
    assert (server.serving[NETWORK.name], stated(server.models)) == (B, B)


@pytest.mark.parametrize("looks", [True, False])
def test_a_version_that_was_altered_meanwhile_is_not_returned_to(rollout, server, export, looks):
    """Nor where the server loads what it finds, as native backends do."""
    roll(rollout, export, B)
    server.looks = looks
    (server.models / NETWORK.name / "1" / "model.onnx").write_text("other weights")
    with pytest.raises(RolloutFailed, match="version 1 was refused; version 2 serves on: .*not the graph"):
        rollout.back()
    assert (server.serving[NETWORK.name], stated(server.models)) == (B, B)


def test_a_failed_export_leaves_nothing(rollout, server):
    def fail():
        raise ValueError("gate")

    with pytest.raises(ValueError, match="gate"):
        rollout.start(fail, lambda _: Agrees())
    assert lying(server.models) == (["1"], [])
    assert not (server.models / CANDIDATE.name).exists()


def test_what_a_killed_roll_out_left_is_withdrawn(rollout, server, export):
    export(B)
    roll(rollout, export, C)
    assert lying(server.models) == (["1", "3"], ["2"])


@pytest.mark.parametrize(("end", "serves"), [("promote", B), ("abort", A), ("back", A)])
def test_a_canary_ends(rollout, server, export, end, serves):
    roll(rollout, export, B, share=20)
    assert server.serving[NETWORK.name] == A
    assert router.share(server.models) == 20
    assert list(server.serving[CLASSIFIER.name]) == [PREPROCESS.name, CANARY.name]
    assert [line.rpartition("  ")[2] for line in listed(server.models)] == ["serves 80 %", "canary 20 %"]
    with pytest.raises(RolloutFailed, match="a canary of 20 % is under way: promote or abort it first"):
        roll(rollout, export, C)
    getattr(rollout, end)()
    assert (server.serving[NETWORK.name], stated(server.models)) == (serves, serves)
    assert set(server.serving) == {NETWORK.name, CLASSIFIER.name}
    template = read(TEMPLATES / CLASSIFIER.name / "config.pbtxt")
    set_sizes(template, CLASSIFIER)
    assert read(server.models / CLASSIFIER.name / "config.pbtxt") == template
    assert not (server.models / CANARY.name).exists()
    with pytest.raises(RolloutFailed, match="no canary is under way"):
        rollout.promote()


def test_back_without_a_server(rollout, server, export):
    """As when it does not start any more."""
    roll(rollout, export, B)
    server.load = server.infer = pytest.fail
    rollout.lay_back()
    assert (stated(server.models), lying(server.models)) == (A, (["1"], ["2"]))


def test_one_roll_out_at_a_time(rollout, server, export):
    with (
        locked(server.models / CLASSIFIER.name),
        pytest.raises(RolloutFailed, match="another roll-out is under way"),
    ):
        rollout.back()


def test_what_was_withdrawn_does_not_come_back_by_itself(rollout, server, mini):
    """`make serve` exports a bundle only if it is not there; one that was withdrawn is there."""
    bundle = Bundle.open(mini)
    models = server.models
    version = models / NETWORK.name / "1"
    manifest = {**read_manifest(version), "bundle_digest": bundle.digest, "precision": "fp32"}
    store.withdraw(models, version.rename(version.with_name("4")), "rolled back")
    (withdrawn(models)[0] / "manifest.json").write_text(json.dumps(manifest))
    version.mkdir()
    (version / "manifest.json").write_text(json.dumps({**manifest, "bundle_digest": C}))
    arguments = [str(mini), "--repository", str(models), "--if-needed"]
    done = click.testing.CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == 0, done.output
    assert "was version 4 and was withdrawn (rolled back); what serves, serves on" in done.output
    assert lying(models) == (["1"], ["4"])


def test_without_a_service_the_command_says_so(server):
    arguments = ["back", f"--repository={server.models}", "--url=127.0.0.1:9"]
    done = click.testing.CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert "version 1 is the only one" in done.output
    listing = click.testing.CliRunner().invoke(main, ["list", f"--repository={server.models}"])
    assert listing.output.splitlines() == [f"version 1  derma-mini ({A[:12]}), fp32  serves"]
