"""``derma status --verify``: which bundle each part names."""

import json
import shutil
from types import SimpleNamespace

import click.testing
import pytest

from derma_semantics.commands import cli
from derma_semantics.domain.diagnosis import ServedBundle
from derma_semantics.domain.errors import ServiceUnavailable
from derma_training.bundle import Bundle


@pytest.fixture
def served(mini):
    """What a service says of itself when all is well; tests plant a difference."""
    bundle = Bundle.open(mini)
    return SimpleNamespace(
        answers=bundle.digest,
        configuration=ServedBundle(bundle.digest, "mini", "fp32", "1", prompts_digest=bundle.prompts_digest),
        sidecar={"ready": True, "bundle_digest": bundle.digest},
        ready=True,
    )


@pytest.fixture
def status(monkeypatch, served):
    class Server:
        def __init__(self, url, **_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def close(self):
            pass

        def server(self):
            return {"name": "triton", "version": "2.51.0"}

        def index(self):
            return [{"name": "derma_classifier", "version": "1", "state": "READY", "reason": ""}]

        def steps(self):
            return ["derma_classifier"], False

        def ready(self, timeout):
            return served.ready

        def bundle(self):
            return served.configuration

        def classify(self, image):
            if isinstance(served.answers, Exception):
                raise served.answers
            return SimpleNamespace(bundle=ServedBundle(served.answers))

    class Sidecar:
        def __init__(self, *_):
            pass

        def ready(self, timeout):
            if isinstance(served.sidecar, Exception):
                raise served.sidecar
            return served.sidecar

        def close(self):
            pass

    monkeypatch.setattr("derma_semantics.commands.status.ModelControl", Server)
    monkeypatch.setattr("derma_semantics.commands.status.HttpSaliency", Sidecar)
    return lambda *given: click.testing.CliRunner().invoke(
        cli.main, ["status", "--url", "a:1", *map(str, given)], obj=Server
    )


def test_all_agree(status, served, mini):
    expected = ("--verify",), ("--expect", mini), ("--expect", mini / "bundle.json")
    for options in (*expected, ("--expect", served.answers.upper())):
        result = status(*options)
        assert result.exit_code == 0, result.output
        assert "verified  the same bundle in answers, configuration, saliency" in result.stdout
    verified = json.loads(status("--expect", mini, "--json").stdout)["verified"]
    places = ("answers", "configuration", "saliency", "expected")
    assert verified == {"ok": True, **dict.fromkeys(places, served.answers)}


def test_without_asking_nothing_is_classified(status, served):
    served.answers = AssertionError("nobody asked")
    assert status().exit_code == 0


@pytest.mark.parametrize("place", ["answers", "configuration", "saliency", "prompts", "expected"])
def test_one_that_differs_is_exit_code_1(status, served, mini, place):
    other = "ab" * 32
    right = served.configuration
    if place == "answers":
        served.answers = other
    elif place == "configuration":
        served.configuration = ServedBundle(other, "mini", prompts_digest=right.prompts_digest)
    elif place == "saliency":  # it says itself that it is not ready
        served.sidecar = {"ready": False, "bundle_digest": other}
    elif place == "prompts":
        served.configuration = ServedBundle(right.digest, "mini", prompts_digest=other)
    result = status("--expect", other if place == "expected" else mini)
    assert result.exit_code == 1
    line = next(line for line in result.stdout.splitlines() if line.startswith("MISMATCH"))
    assert ("prompts" if place == "prompts" else f"{place} {other[:12]}") in line


def test_a_sidecar_that_does_not_answer_is_not_compared(status, served):
    served.sidecar = ServiceUnavailable("s:4 is not available")
    assert status("--verify").exit_code == 0
    assert status("--verify", "--saliency").exit_code == 3


def test_who_does_not_answer_is_exit_code_3(status, served):
    served.answers = ServiceUnavailable("the queue is gone")
    result = status("--verify")
    assert result.exit_code == 3 and "the queue is gone" in result.stdout
    served.ready = False
    assert status("--verify").exit_code == 3


def test_a_bundle_at_hand_that_was_altered(status, mini, tmp_path):
    folder = shutil.copytree(mini, tmp_path / "mini")
    weights = folder / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    result = status("--expect", folder)
    assert result.exit_code == 1 and "adapter_model.safetensors was altered" in result.output


def test_what_is_no_bundle_is_a_wrong_use(status, tmp_path):
    result = status("--expect", "0c6e3a1a102f")
    assert result.exit_code == 2 and "64 hex digits" in result.output
    result = status("--expect", tmp_path)
    assert result.exit_code == 1 and "is not a bundle" in result.output
