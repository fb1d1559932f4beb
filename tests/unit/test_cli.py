"""``derma``: what it prints and how it exits, without a server."""

import json

import click.testing
import pytest

from derma_semantics import cli
from derma_semantics.conditions import CONDITIONS
from derma_semantics.contract import Triage
from derma_semantics.diagnosis import Diagnosis, Finding, ServedBundle
from derma_semantics.errors import CorruptImage, Overloaded, ServiceUnavailable


def diagnosis(triage=Triage.ROUTINE, top="NV", risk=0.1, bundle="mini"):
    ranked = sorted(CONDITIONS, key=lambda c: c.code != top)
    findings = tuple(Finding(c, 0.7 if c.code == top else 0.05) for c in ranked)
    served = ServedBundle("ab" * 32, bundle, "fp32", "1")
    return Diagnosis(findings, risk, triage, tuple(ranked[:2]), None, served)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run ``derma`` with a client whose answers are given by file name."""

    def invoke(answers, *arguments):
        class Client:
            def __init__(self, url, timeout):
                pass

            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

            def classify(self, paths, return_exceptions):
                assert return_exceptions
                return [answers[path.name] for path in paths]

        monkeypatch.setattr(cli, "DermaClient", Client)
        for name in answers:
            (tmp_path / name).write_bytes(b"x")
        given = [str(tmp_path / a) if a in answers or a == "." else a for a in arguments]
        return click.testing.CliRunner().invoke(cli.main, ["classify", *given])

    return invoke


def test_readable_answer(run):
    result = run({"a.jpg": diagnosis()}, "a.jpg")
    assert result.exit_code == 0
    for condition in CONDITIONS:
        assert condition.name in result.output
    assert " 70.0%  █████████████████████ " in result.output
    assert "  differential at 95 %: NV, MEL\n" in result.output
    assert "HIGH RISK" not in result.output
    assert "Not a medical device" in result.output


def test_random_weights_are_named_in_every_answer(run):
    answers = {"a.jpg": diagnosis(bundle="biomedclip RANDOM WEIGHTS")}
    assert "biomedclip RANDOM WEIGHTS" in run(answers, "a.jpg").output
    assert json.loads(run(answers, "a.jpg", "--json").output)["bundle"] == "biomedclip RANDOM WEIGHTS"


def test_alerts(run):
    urgent = run({"a.jpg": diagnosis(Triage.URGENT, risk=0.9)}, "a.jpg").output
    assert "HIGH RISK: best match melanocytic nevus, triage urgent" in urgent
    melanoma = run({"a.jpg": diagnosis(Triage.ROUTINE, "MEL")}, "a.jpg").output
    assert "HIGH RISK: best match melanoma, triage routine" in melanoma
    assert "HIGH RISK" not in run({"a.jpg": diagnosis(Triage.REVIEW, "AKIEC")}, "a.jpg").output
    assert "review: risk 0.40" in run({"a.jpg": diagnosis(Triage.REVIEW, risk=0.4)}, "a.jpg").output


def test_json_is_one_object_a_line(run):
    result = run({"a.jpg": diagnosis(), "b.jpg": CorruptImage("damaged")}, "a.jpg", "b.jpg", "--json")
    good, bad = map(json.loads, result.output.splitlines())
    assert good["condition"] == "NV"
    assert good["prediction_set"] == ["NV", "MEL"]
    assert set(good["probabilities"]) == {c.code for c in CONDITIONS}
    assert (bad["error"], bad["message"]) == ("CorruptImage", "damaged")
    assert result.exit_code == 1


def test_one_bad_image_does_not_hide_the_others(run):
    result = run({"a.jpg": CorruptImage("damaged"), "b.jpg": diagnosis()}, "a.jpg", "b.jpg")
    assert "error: damaged" in result.output
    assert "melanocytic nevus" in result.output
    assert result.exit_code == 1


def test_folder_stands_for_its_images(run):
    answers = {name: diagnosis() for name in ("b.jpg", "a.PNG", "notes.txt")}
    result = run(answers, ".", "--json")
    assert [json.loads(line)["image"].rsplit("/")[-1] for line in result.output.splitlines()] == [
        "a.PNG",
        "b.jpg",
    ]


def test_folder_without_images_is_a_usage_error(run):
    result = run({"notes.txt": None}, ".")
    assert result.exit_code == 2
    assert "holds no image" in result.output


def test_missing_file_is_a_usage_error(run):
    assert run({}, "nothing.jpg").exit_code == 2


def test_unavailable_service_exits_3(run):
    result = run({"a.jpg": ServiceUnavailable("host:1 is not available")}, "a.jpg")
    assert result.exit_code == 3
    assert "make serve" in result.output


def test_overload_is_the_image_s_failure(run):
    assert run({"a.jpg": Overloaded("queue full")}, "a.jpg").exit_code == 1


def test_status_of_no_server_exits_3():
    result = click.testing.CliRunner().invoke(cli.main, ["status", "--url", "127.0.0.1:1"])
    assert result.exit_code == 3
    assert "127.0.0.1:1" in result.output


def test_help_teaches():
    output = click.testing.CliRunner().invoke(cli.main, ["--help"]).output
    assert "    derma classify photos/ --json\n" in output
