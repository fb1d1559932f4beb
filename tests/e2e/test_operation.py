"""The service's life: new versions, dead processes, start and stop."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from derma_semantics import DermaClient
from derma_training.bundle import Bundle, seal

LAUNCHER = [sys.executable, str(Path(__file__).resolve().parents[2] / "deploy" / "launcher.py")]


def poll(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"


@pytest.fixture
def other_bundle(mini, tmp_path):
    """The committed bundle under another name: other digest, same answers."""
    folder = shutil.copytree(mini, tmp_path / "other")
    facts = {k: v for k, v in Bundle.open(mini).manifest.items() if k not in ("schema_version", "files")}
    return seal(folder, **{**facts, "name": "other"})


def test_new_version_without_restart(service, client, other_bundle, jpeg):
    """Under load: no request fails, and answers say which weights gave them."""
    before = client.classify(jpeg(0))
    answers, failures, done = [], [], threading.Event()

    def load():
        with DermaClient(service.url) as own:
            while not done.is_set():
                try:
                    answers.append(own.classify(jpeg(0)))
                except Exception as exc:
                    failures.append(exc)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        command = [sys.executable, "-m", "derma_export", str(other_bundle.path)]
        options = [f"--repository={service.repository}", f"--load={service.url}"]
        subprocess.run([*command, *options], check=True, timeout=240, capture_output=True)
        poll(lambda: answers[-1].bundle.digest == other_bundle.digest, 30, "the new version answers")
    finally:
        done.set()
        thread.join(30)
    assert failures == []
    assert {a.bundle.digest for a in answers} == {before.bundle.digest, other_bundle.digest}
    after = client.classify(jpeg(0))
    assert (after.bundle.name, after.bundle.version) == ("other", "2")
    assert after.risk == pytest.approx(before.risk, abs=1e-5)


@pytest.mark.parametrize("instance", ["derma_preprocess_0_1", "derma_biomedclip_0_0"])
def test_killed_stub_is_replaced(service, client, jpeg, instance):
    """Within ten seconds; readiness is false meanwhile."""
    expected = client.classify(jpeg(1)).risk
    os.kill(service.stub(instance), signal.SIGKILL)
    killed = time.monotonic()
    poll(lambda: not client.ready(), 5, "readiness turns false")

    def answers():
        return client.ready() and client.classify(jpeg(1)).risk == pytest.approx(expected, abs=1e-5)

    poll(answers, 10 - (time.monotonic() - killed), "the service recovers")
    assert all(not isinstance(a, Exception) for a in client.classify([jpeg(1)] * 40, return_exceptions=True))


def test_status_says_what_is_served(derma, client):
    done = derma("status")
    assert done.returncode == 0
    assert "derma_classifier is ready" in done.stdout
    assert client.bundle().digest in done.stdout
    report = json.loads(derma("status", "--json").stdout)
    assert report["ready"] is True
    assert {"derma_classifier", "derma_preprocess", "derma_biomedclip"} == {
        m["name"] for m in report["models"]
    }


def test_one_state_folder_has_one_service(service):
    done = subprocess.run(
        [*LAUNCHER, "serve", f"--state={service.state}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "already runs" in done.stderr


def test_taken_port_is_named(service, tmp_path):
    port = service.ports["grpc"]
    command = [*LAUNCHER, "serve", f"--state={tmp_path}", f"--repository={service.repository}"]
    done = subprocess.run(
        [*command, f"--grpc-port={port}", "--http-port=0", "--metrics-port=0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert f"port {port} cannot be used" in done.stderr


def test_run_starts_and_stops_and_passes_the_exit_code(repository, tmp_path):
    ports = {}
    for name in ("http", "grpc", "metrics"):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports[name] = probe.getsockname()[1]
    options = [f"--{name}-port={port}" for name, port in ports.items()]
    code = "import os, sys; from derma_semantics import DermaClient; sys.exit(40 + DermaClient(os.environ['DERMA_URL']).ready())"
    done = subprocess.run(
        [
            *LAUNCHER,
            "run",
            f"--repository={repository}",
            f"--state={tmp_path}",
            *options,
            "--",
            sys.executable,
            "-c",
            code,
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 41, done.stderr
    assert not (tmp_path / "service.json").exists()
    assert not list(Path("/dev/shm").glob(f"derma_{ports['grpc']}_*"))


def test_broken_repository_ends_with_the_reason(tmp_path):
    (tmp_path / "models").mkdir()
    done = subprocess.run(
        [*LAUNCHER, "serve", f"--repository={tmp_path / 'models'}", f"--state={tmp_path / 'state'}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3
    assert "derma_classifier" in done.stderr


def test_stop_without_a_service(tmp_path):
    done = subprocess.run(
        [*LAUNCHER, "stop", f"--state={tmp_path}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "no service is running")
