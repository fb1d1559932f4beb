"""The service's life: new versions, dead processes, start and stop."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from derma_semantics import AsyncDermaClient, DermaClient, Diagnosis
from derma_semantics.domain.errors import Overloaded, ServiceUnavailable
from derma_training.bundle import Bundle, seal


@pytest.fixture
def other_bundle(mini, tmp_path):
    """The committed bundle under another name: other digest, same answers."""
    folder = shutil.copytree(mini, tmp_path / "other")
    facts = {k: v for k, v in Bundle.open(mini).manifest.items() if k not in ("schema_version", "files")}
    return seal(folder, **{**facts, "name": "other"})


@contextmanager
def load(url, image):
    """Requests, one after another, while the block runs; yields the answers and the failures."""
    answers, failures, done = [], [], threading.Event()

    def ask():
        with DermaClient(url) as own:
            while not done.is_set():
                try:
                    answers.append(own.classify(image))
                except Exception as exc:
                    failures.append(exc)
                    done.wait(0.05)  # as a client that backs off, not one that hammers

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield answers, failures
    finally:
        done.set()
        for thread in threads:
            thread.join(60)


def test_new_version_without_restart(until, service, client, other_bundle, jpeg):
    """Under load: no request fails, and answers say which weights gave them."""
    before = client.classify(jpeg(0))
    with load(service.url, jpeg(0)) as (answers, failures):
        command = [sys.executable, "-m", "derma_export", str(other_bundle.path)]
        options = [f"--repository={service.repository}", f"--load={service.url}"]
        subprocess.run([*command, *options], check=True, timeout=240, capture_output=True)
        until(lambda: answers[-1].bundle.digest == other_bundle.digest, 30, "the new version answers")
    assert failures == []
    assert {a.bundle.digest for a in answers} == {before.bundle.digest, other_bundle.digest}
    after = client.classify(jpeg(0))
    assert (after.bundle.name, after.bundle.version) == ("other", "2")
    assert after.risk == pytest.approx(before.risk, abs=1e-5)


@pytest.mark.timeout(900)
def test_roll_out_by_command(service, client, mini, jpeg):
    """Canary, promotion and the way back; the full proof is in faults/test_rollout.py."""

    def run(*arguments):
        command = [sys.executable, "-m", "derma_export.rollout", *arguments]
        command += [f"--repository={service.repository}"]
        env = {**os.environ, "DERMA_URL": service.url}
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=env, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    before = client.classify(jpeg(0)).bundle
    said = run("start", str(mini), "--canary=30")
    number = re.search(r"canary version (\d+) answers 30 % of the images", said)[1]
    assert f"version {number}  derma-mini" in run("list")
    with load(service.url, jpeg(0)) as (answers, failures):
        run("promote")
        assert client.bundle().version == number
        run("back")
        assert client.classify(jpeg(0)).bundle.digest == before.digest
    assert failures == []
    assert answers


@pytest.mark.parametrize("instance", ["derma_preprocess_0_1", "derma_biomedclip_0_0"])
def test_killed_stub_is_replaced(until, service, client, jpeg, instance):
    """Under load, within ten seconds; readiness is false meanwhile, and failures say so."""
    expected = client.classify(jpeg(1)).risk
    with load(service.url, jpeg(1)) as (answers, failures):
        until(lambda: answers, 10, "the load runs")
        os.kill(service.stub(instance), signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: not client.ready(), 5, "readiness turns false")
        until(lambda: client.ready(), 10 - (time.monotonic() - killed), "the service recovers")
        before = len(answers)
        until(lambda: len(answers) > before + 5, 10, "it answers again")
    assert {type(failure) for failure in failures} <= {ServiceUnavailable}
    assert all(answer.risk == pytest.approx(expected, abs=1e-5) for answer in answers)
    client.classify([jpeg(1)] * 40)


@pytest.mark.parametrize("instance", ["derma_preprocess_0_1", "derma_biomedclip_0_0"])
def test_a_killed_process_is_survived(until, service, client, jpeg, instance):
    """A run over many images goes on while a model's process is replaced: not one error."""
    os.kill(service.stub(instance), signal.SIGKILL)
    begun = time.monotonic()
    outcomes = [answer for _, answer in client.classify_many([jpeg(0)] * 60)]
    assert {type(outcome) for outcome in outcomes} == {Diagnosis}
    print(f"answered {time.monotonic() - begun:.1f} s after {instance} was killed")
    until(client.ready, 10, "the service recovers")


def test_killed_triton_is_restarted(until, service, client, jpeg):
    expected = client.classify(jpeg(2)).risk
    server = next(pid for pid, command in service.processes() if "bin/tritonserver " in command)
    os.kill(server, signal.SIGKILL)
    until(lambda: not client.ready(timeout=1), 5, "readiness turns false")
    until(lambda: client.ready(timeout=1), 60, "Triton starts again")
    assert client.classify(jpeg(2)).risk == pytest.approx(expected, abs=1e-5)


async def test_full_queue_is_refused_as_overload(service, client, jpeg):
    """Far more requests at once than the queues hold: answered or refused, none left hanging."""
    async with AsyncDermaClient(service.url, timeout=200, retry_for=0) as flood:
        asked = [flood.classify(jpeg(0)) for _ in range(900)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
    kinds = {type(outcome) for outcome in outcomes}
    assert kinds == {Diagnosis, Overloaded}
    assert any("maximum queue size" in str(o) for o in outcomes if isinstance(o, Overloaded))
    assert client.classify(jpeg(0)).risk >= 0


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


def test_one_state_folder_has_one_service(launcher, service):
    done = subprocess.run(
        [*launcher, "serve", f"--state={service.state}", f"--repository={service.repository}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "already runs" in done.stderr


def test_taken_port_is_named(launcher, service, tmp_path):
    port = service.ports["grpc"]
    command = [*launcher, "serve", f"--state={tmp_path}", f"--repository={service.repository}"]
    done = subprocess.run(
        [*command, f"--grpc-port={port}", "--http-port=0", "--metrics-port=0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert f"port {port} cannot be used" in done.stderr


def test_run_starts_and_stops_and_passes_the_exit_code(launcher, ports, repository, tmp_path):
    options = [f"--{name}-port={port}" for name, port in ports.items()]
    code = (
        "import os, sys; from derma_semantics import DermaClient; "
        "sys.exit(40 + DermaClient(os.environ['DERMA_URL']).ready())"
    )
    done = subprocess.run(
        [
            *launcher,
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
    assert not (tmp_path / "admin.key").exists()
    assert not list(Path("/dev/shm").glob(f"derma_{ports['grpc']}_*"))


def test_broken_repository_ends_with_the_reason(launcher, ports, tmp_path):
    (tmp_path / "models").mkdir()
    options = [f"--{name}-port={port}" for name, port in ports.items()]
    done = subprocess.run(
        [
            *launcher,
            "serve",
            f"--repository={tmp_path / 'models'}",
            f"--state={tmp_path / 'state'}",
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3
    assert "derma_classifier" in done.stderr


def test_stop_ends_everything(launcher, another_service, jpeg):
    client = DermaClient(another_service.url)
    client.classify(jpeg(0))
    stop = [*launcher, "stop", f"--state={another_service.state}"]
    done = subprocess.run(stop, capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "stopped")
    assert another_service.launcher.wait(30) == 0
    assert another_service.processes() == []
    assert another_service.segments() == []
    with pytest.raises(ServiceUnavailable):
        client.classify(jpeg(0))


def test_stop_while_it_starts(until, launcher, ports, repository, tmp_path):
    options = [f"--{name}-port={port}" for name, port in ports.items()]
    command = [*launcher, "serve", f"--repository={repository}", f"--state={tmp_path}", *options]
    starting = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    until((tmp_path / "triton.log").is_file, 30, "Triton was started")
    starting.send_signal(signal.SIGTERM)
    output, _ = starting.communicate(timeout=60)
    assert (starting.returncode, output.strip()) == (0, "stopped")
    assert not list(Path("/dev/shm").glob(f"derma_{ports['grpc']}_*"))


def test_stop_without_a_service(launcher, tmp_path):
    done = subprocess.run(
        [*launcher, "stop", f"--state={tmp_path}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "no service is running")
