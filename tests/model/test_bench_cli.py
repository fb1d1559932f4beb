"""The command line: what it teaches, and how it refuses."""

import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import pytest
from click import ClickException
from click.testing import CliRunner

from derma_bench.cli import main
from derma_bench.commands.options import session
from derma_serving.settings import TEMPLATES


def test_help_teaches():
    run = CliRunner().invoke
    assert "derma-bench saturate --p99 100" in run(main, ["--help"]).output
    for command in main.commands:
        done = run(main, [command, "--help"])
        assert done.exit_code == 0, done.output
        assert "--smoke" in done.output or command == "report"


def test_help_imports_nothing_heavy():
    code = (
        "import sys, derma_bench.cli\n"
        "try: derma_bench.cli.main(['--help'])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "saturate" in done.stdout
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    heavy = {"torch", "numpy", "onnxruntime", "grpc", "PIL", "matplotlib", "httpx", "google", "tqdm"}
    assert not loaded & (heavy | {"derma_export", "derma_training"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["service", "--concurrency", "1,x"], "no list such as"),
        (["service", "--concurrency", "0"], "start at 1"),
        (["service", "--against", "nobody"], "nobody"),
        (["decode", "--size", "large"], "no size such as"),
        (["saturate"], "--p99"),
        (["report", "missing.json", "--out", "x"], "missing.json"),
    ],
)
def test_wrong_usage_is_told(arguments, words):
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert words in done.output


def test_a_sending_process_that_died_is_told():
    with (
        pytest.raises(ClickException, match="a process that sends images died.*fewer --processes"),
        session(),
    ):
        raise BrokenProcessPool("terminated abruptly")


def test_rivals_need_a_bundle(tmp_path):
    done = CliRunner().invoke(main, ["service", "--against", "baseline", "--out", str(tmp_path / "a.json")])
    assert done.exit_code == 1
    assert "needs --bundle" in done.output


SMALLER = "max_batch_size: 4"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--variant", "a", "max_batch: 4"], "variant 'a' is not a model configuration: 1:1"),
        (["--variant", "a", "max_batch_size: 32"], "variant 'a' changes nothing"),
        (["--variant", "a", ""], "variant 'a' changes nothing"),
        (["--variant", "a", 'name: "resnet"'], "variant 'a' changes the model 'resnet': choose from"),
        (["--variant", "a", SMALLER, "--variant", "a", SMALLER], "variant 'a' needs a name of its own"),
        (["--variant", "derma", SMALLER], "variant 'derma' needs a name of its own"),
        (["--variant", "baseline", SMALLER], "taken are baseline, derma, engine loop, peer, with audit log"),
        (["--variant", " ", SMALLER], "variant ' ' needs a name"),
        (["--variant", "a", SMALLER, "--url", "127.0.0.1:1"], "cannot change the one at --url 127.0.0.1:1"),
        (["--audited", "--url", "127.0.0.1:1"], "cannot change the one at --url 127.0.0.1:1"),
    ],
)
def test_wrong_variants_are_refused_before_anything_starts(arguments, words, tmp_path, jpeg, monkeypatch):
    monkeypatch.delenv("DERMA_PROFILE", raising=False)
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    where = ["--images", str(tmp_path), "--out", str(tmp_path / "a.json"), "--repository", str(TEMPLATES)]
    done = CliRunner().invoke(main, ["service", *arguments, *where])
    assert done.exit_code == 1
    assert words in done.output
