"""``derma``: what it prints and how it exits, without a server."""

import json
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import click.testing
import pytest

from derma_semantics.bulk.reports import NotReported
from derma_semantics.commands import cli
from derma_semantics.commands.terminal import UNSEEN, escaped
from derma_semantics.domain.conditions import CONDITIONS
from derma_semantics.domain.contract import Triage
from derma_semantics.domain.diagnosis import Diagnosis, Finding, ServedBundle
from derma_semantics.domain.errors import CorruptImage, Overloaded, ServiceUnavailable


def diagnosis(triage=Triage.ROUTINE, top="NV", risk=0.1, bundle="mini"):
    ranked = sorted(CONDITIONS, key=lambda c: c.code != top)
    findings = tuple(Finding(c, 0.7 if c.code == top else 0.05) for c in ranked)
    served = ServedBundle("ab" * 32, bundle, "fp32", "1")
    return Diagnosis(findings, risk, triage, tuple(ranked[:2]), None, served)


class FakeClient:
    """Its answers are given by file name."""

    def __init__(self, answers):
        self.answers = answers

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def classify_many(self, paths):
        return ((path, self.answers[path.name]) for path in paths)


@pytest.fixture
def run(tmp_path):
    """Run ``derma classify`` on files for which a client has these answers."""

    def invoke(answers, *arguments, **more):
        for name in answers:
            (tmp_path / name).write_bytes(b"x")
        given = [str(tmp_path / a) if a in answers or a == "." else a for a in arguments]
        return click.testing.CliRunner().invoke(
            cli.main, ["classify", *given], obj=lambda *_, **options: FakeClient(answers), **more
        )

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
    review = run({"a.jpg": diagnosis(Triage.REVIEW, risk=0.00049999)}, "a.jpg").output
    assert "review: risk 0.0004999," in review
    assert "risk 0.0004999   triage review" in review


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


@pytest.mark.parametrize(("value", "coloured"), [(None, True), ("", True), ("1", False), ("0", False)])
def test_no_color_is_respected_on_a_terminal(run, value, coloured):
    """https://no-color.org: any value but the empty one."""
    answers = {"a.jpg": diagnosis(Triage.URGENT, risk=0.9), "b.jpg": CorruptImage("damaged")}
    result = run(answers, "a.jpg", "b.jpg", color=True, env={"NO_COLOR": value})
    assert ("\x1b[31m" in result.stdout, "\x1b[31m" in result.stderr) == (coloured, coloured)
    assert "HIGH RISK" in result.stdout and "damaged" in result.stderr


def test_reports_of_dicom_images(run, tmp_path, monkeypatch):
    """Only for answers; one that cannot be written is named beside the answer, which stands."""
    asked = []

    def unreported(path, answer, folder):
        asked.append((path.name, folder))
        return NotReported("no space") if path.name == "b.dcm" else None

    monkeypatch.setattr("derma_semantics.commands.classify.unreported", unreported)
    answers = {"a.dcm": diagnosis(), "b.dcm": diagnosis(), "c.dcm": CorruptImage("damaged")}
    result = run(answers, *answers, "--sr", tmp_path / "reports", "--json")
    assert result.exit_code == 1
    assert asked == [("a.dcm", tmp_path / "reports"), ("b.dcm", tmp_path / "reports")]
    lines = [json.loads(line) for line in result.output.splitlines()]
    assert [line.get("error") for line in lines] == [None, None, "CorruptImage"]
    assert [line.get("report") for line in lines] == [None, "no space", None]
    assert "risk" in lines[1]
    told = run(answers, "b.dcm", "--sr", str(tmp_path / "reports"))
    assert told.exit_code == 1
    assert "triage" in told.stdout and "no space" in told.stderr


def test_the_connection_is_handed_to_the_client(tmp_path, monkeypatch):
    monkeypatch.setattr("derma_semantics.commands.options.TLS", SimpleNamespace)
    (tmp_path / "token").write_text("secret\n")
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("PEM")
    given = {}

    def client(url, **options):
        given.update(options, url=url)
        return FakeClient({"token": diagnosis()})

    options = ["--url", "a:1,b:2", "--timeout", "3", "--token-file", tmp_path / "token"]
    options += ["--tls-name", "triton.clinic", "--cert", tmp_path / "cert.pem", "--key", tmp_path / "key.pem"]
    env = {"DERMA_CA": str(tmp_path / "ca.pem"), "DERMA_TOKEN": "other"}
    arguments = ["classify", tmp_path / "token", *options, "--saliency-url", "http://c:3"]
    result = click.testing.CliRunner().invoke(cli.main, list(map(str, arguments)), obj=client, env=env)
    assert result.exit_code == 0, result.output
    assert (given["url"], given["timeout"], given["token"]) == ("a:1,b:2", 3.0, "secret")
    assert given["saliency_url"] == "http://c:3"
    tls = given["tls"]
    assert [tls.ca, tls.certificate, tls.key] == [tmp_path / f"{n}.pem" for n in ("ca", "cert", "key")]
    assert tls.name == "triton.clinic"


def test_no_tls_unless_asked_for_and_the_token_from_the_environment(run, tmp_path):
    given = {}

    def client(url, **options):
        given.update(options, url=url)
        return FakeClient({"a.jpg": diagnosis()})

    (tmp_path / "a.jpg").write_bytes(b"x")
    arguments = ["classify", str(tmp_path / "a.jpg")]
    for more, tls in (([], False), (["--tls"], True)):
        click.testing.CliRunner().invoke(cli.main, [*arguments, *more], obj=client, env={"DERMA_TOKEN": "t"})
        assert (given["token"], given["tls"] is not None) == ("t", tls)


def test_a_certificate_needs_its_key(run, tmp_path):
    (tmp_path / "cert.pem").write_text("PEM")
    result = run({"a.jpg": diagnosis()}, "a.jpg", "--cert", str(tmp_path / "cert.pem"))
    assert result.exit_code == 2 and "both, certificate and key" in result.output


def test_no_option_takes_a_token():
    """Everybody on a machine can read command lines."""
    assert "--token " not in click.testing.CliRunner().invoke(cli.main, ["classify", "--help"]).output


def test_help_teaches():
    output = click.testing.CliRunner().invoke(cli.main, ["--help"]).output
    assert "    derma classify photos/ --json\n" in output


def test_every_command_is_there_and_says_json():
    runner = click.testing.CliRunner()
    for name in ("bulk", "classify", "evaluate", "explain", "status"):
        assert "--json" in runner.invoke(cli.main, [name, "--help"]).output


HOSTILE = "a\x1b]0;title\x07\x1b[2J\u202egpj.\x9b1m\r\u2028b\nc\udce9é.jpg"


@pytest.mark.parametrize("answer", [diagnosis(), CorruptImage(f"{HOSTILE} is damaged")])
def test_a_name_cannot_act_on_a_terminal(run, answer):
    result = run({HOSTILE: answer}, HOSTILE, color=True)
    shown = click.unstyle(result.stdout + result.stderr)
    assert "a\\x1b]0;title\\x07\\x1b[2J\\u202egpj.\\x9b1m\\x0d\\u2028b\\x0ac\\xe9é.jpg" in shown
    assert not {char for char in shown if unicodedata.category(char) in UNSEEN} - {"\n"}


def test_ideographs_and_spaces_are_shown_as_they_are():
    assert escaped("母斑　1\u00a0é.jpg") == "母斑　1\u00a0é.jpg"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name):
    command = cli.main.get_command(None, name)
    assert command.name == name
    assert command.get_short_help_str(200).startswith(cli.COMMANDS[name].removesuffix("."))


def test_no_module_of_a_command_is_missing_from_the_list():
    folder = Path(cli.__file__).parent
    found = {path.stem for path in folder.glob("*.py") if "@click.command()\n" in path.read_text()}
    assert found == cli.COMMANDS.keys()
