"""``derma status``: a service, several, and the sidecar beside them."""

import json

import click.testing
import pytest

from derma_semantics.commands import cli
from derma_semantics.domain.diagnosis import ServedBundle
from derma_semantics.domain.errors import ServiceUnavailable

BUNDLE = ServedBundle("ab" * 32, "mini", "fp32", "3")
MODEL = {"name": "derma_classifier", "version": "1", "state": "READY", "reason": ""}


class FakeServer:
    """Both connections that the command opens; ``b:2`` is not there."""

    def __init__(self, url, **_):
        self.url = url

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def server(self):
        if self.url == "b:2":
            raise ServiceUnavailable("b:2 is not available")
        return {"name": "triton", "version": "2.51.0"}

    def index(self):
        return [MODEL]

    def steps(self):
        return ["derma_classifier"], False

    def ready(self, timeout):
        return self.url != "c:3"

    def bundle(self):
        return BUNDLE

    def close(self):
        pass


class FakeSidecar:
    answer = {"ready": True, "bundle": "mini"}

    def __init__(self, *_):
        pass

    def ready(self, timeout):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self):
        pass


@pytest.fixture
def status(monkeypatch):
    monkeypatch.setattr("derma_semantics.commands.status.ModelControl", FakeServer)
    monkeypatch.setattr("derma_semantics.commands.status.HttpSaliency", FakeSidecar)

    def invoke(*arguments, sidecar=FakeSidecar.answer):
        monkeypatch.setattr(FakeSidecar, "answer", sidecar)
        return click.testing.CliRunner().invoke(cli.main, ["status", *arguments], obj=FakeServer)

    return invoke


def test_all_is_well(status):
    result = status("--url", "a:1", "--saliency")
    assert result.exit_code == 0, result.output
    assert "a:1  triton 2.51.0  derma_classifier is ready" in result.stdout
    assert f"bundle  mini  fp32  version 3  sha256 {BUNDLE.digest}" in result.stdout
    assert "saliency is ready" in result.stdout


def test_json(status):
    report = json.loads(status("--url", "a:1", "--json").stdout)
    assert (report["ready"], report["bundle"]["name"], report["models"]) == (True, "mini", [MODEL])
    assert report["saliency"] == {"url": "http://127.0.0.1:8003", "ready": True, "bundle": "mini"}


DOWN = ServiceUnavailable("http://s:4 is not available")


def test_a_sidecar_that_nobody_named_may_be_absent(status):
    told = status("--url", "a:1", sidecar=DOWN)
    assert told.exit_code == 0
    assert "no saliency sidecar answers, and none was named" in told.stdout
    asked = status("--url", "a:1", "--saliency", sidecar=DOWN)
    assert asked.exit_code == 3 and "derma-saliency serve" in asked.stderr


@pytest.mark.parametrize(
    ("sidecar", "named", "reason"),
    [
        (DOWN, ["--saliency-url", "http://s:4"], "http://s:4 is not available"),
        ({"ready": False, "message": "differs"}, [], "differs"),
    ],
)
def test_a_sidecar_that_was_named_or_answers_must_be_ready(status, sidecar, named, reason):
    told = status("--url", "a:1", *named, sidecar=sidecar)
    assert told.exit_code == 3 and "derma-saliency serve" in told.stderr
    (line,) = [line for line in told.stdout.splitlines() if "saliency" in line]
    assert "saliency is not ready" in line and reason in line


def test_a_model_that_does_not_serve_is_named(status, monkeypatch):
    monkeypatch.setattr(FakeServer, "steps", lambda _: (["derma_preprocess", "derma_biomedclip"], True))
    result = status("--url", "a:1")
    assert result.exit_code == 3
    assert "not serving: derma_preprocess, derma_biomedclip" in result.stdout
    assert "audit log on" in result.stdout


def test_each_of_several_servers_counts(status):
    result = status("--url", "a:1, b:2", "--json")
    assert result.exit_code == 3
    first, second = map(json.loads, result.stdout.splitlines())
    assert (first["url"], first["ready"]) == ("a:1", True)
    assert (second["url"], second["ready"], second["message"]) == ("b:2", False, "b:2 is not available")
    assert "b:2  derma_classifier is not ready  b:2 is not available" in status("--url", "b:2").stdout


def test_a_server_whose_model_is_not_ready(status):
    result = status("--url", "c:3")
    assert result.exit_code == 3
    assert "derma_classifier is not ready" in result.stdout and "bundle" not in result.stdout
