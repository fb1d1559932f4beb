"""What the launcher makes of signals; the real thing is in e2e and faults."""

import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest

from derma_semantics.app.texts import SALIENCY_HINT
from derma_semantics.commands.printing import SIDECAR_HINT
from derma_semantics.saliency import NO_MAPS
from derma_serving import launcher, sidecar
from derma_serving.settings import Settings

# The main thread is in the event nearly all the time, as it seldom is while it serves.
PROGRAM = """
import os, signal, threading, time
from derma_serving import launcher

class Service:
    stopping = threading.Event()

def send():
    for number in range(1000):
        os.kill(os.getpid(), launcher.SIGNALS[number % 2])
        time.sleep(0.0005)

launcher._stop_on_signals(Service)
sender = threading.Thread(target=send)
sender.start()
Service.stopping.wait()
while sender.is_alive():
    Service.stopping.set()
    Service.stopping.wait()
print("alive")
"""


def test_signals_that_interrupt_one_another_and_the_main_thread_stop_nothing_else():
    """Wherever it holds the lock of what they set: a thousand of them."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_without_pytorch_there_are_no_maps_and_one_sentence_says_how_to_get_them(
    tmp_path, monkeypatch, mini, capsys
):
    monkeypatch.setattr(sidecar, "find_spec", lambda name: None)
    monkeypatch.setattr(sidecar, "ROOT", tmp_path)
    settings = Settings(state=tmp_path, bundle=mini)
    away = sidecar.Sidecar(settings)
    away.start()
    away.wait_until_healthy(1, threading.Event())
    assert not away.wanted and not away.alive
    launcher._announce(settings, away.wanted)
    assert f"saliency {NO_MAPS}" in capsys.readouterr().out
    assert SIDECAR_HINT.endswith(NO_MAPS) and SALIENCY_HINT.endswith(NO_MAPS)
    assert NO_MAPS.count(". ") == 0 and "derma-semantics[saliency]" in NO_MAPS


def test_the_sidecar_runs_in_the_projects_environment_where_this_one_has_no_pytorch(tmp_path, monkeypatch):
    monkeypatch.setattr(sidecar, "ROOT", tmp_path)
    assert sidecar.interpreter() == Path(sys.executable)
    monkeypatch.setattr(sidecar, "find_spec", lambda name: None)
    assert sidecar.interpreter() is None
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "ready").touch()
    assert sidecar.interpreter() == tmp_path / ".venv" / "bin" / "python"


def test_a_model_is_put_where_nothing_was_exported(tmp_path, monkeypatch, capsys, mini):
    """In the usual place only, and its heat maps are served too."""
    usual = tmp_path / "models"
    monkeypatch.setattr(Settings, "repository", usual)
    given = {"repository": usual, "bundle": None, "profile": None}
    given |= {f"tls_{name}": None for name in ("name", "ca", "key", "certificate")}
    assert launcher._prepared(dict(given), maps=True).bundle == mini
    assert "derma-mini as it comes with this package, fp32" in capsys.readouterr().out
    assert launcher._prepared(dict(given)).bundle is None
    assert capsys.readouterr().out == ""
    with pytest.raises(click.UsageError, match="elsewhere does not exist"):
        launcher._prepared(given | {"repository": tmp_path / "elsewhere"})
