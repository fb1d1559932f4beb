"""An audit log holds every answer that was given: of parts, beside a dead writer, on a full disk."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
import tritonclient.grpc

from derma_semantics import DermaClient
from derma_semantics.domain.contract import CLASSIFIER, NETWORK, Triage
from derma_semantics.domain.errors import InvalidImage, InvalidRequest, ServiceUnavailable
from derma_semantics.wire.transport import GrpcTransport, ModelControl
from derma_serving import router
from derma_serving.server import PYTHON
from tests.services import LAUNCHER, ROOT, free_ports, start, stop, until


def audited(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_no_answer_escapes_the_audit_log(start_service, jpeg, tmp_path, derma_status):
    """Not one that asks for a part, for classes or for several images, nor while the writer is dead."""
    log = tmp_path / "audit.jsonl"
    service = start_service(f"--audit-log={log}")
    raw = tritonclient.grpc.InferenceServerClient(service.url)
    images = tritonclient.grpc.InferInput("IMAGE", [2, 1], "BYTES")
    images.set_data_from_numpy(np.array([[jpeg(0)], [jpeg(1)]], object))
    for name in CLASSIFIER.outputs:
        raw.infer(CLASSIFIER.name, [images], outputs=[tritonclient.grpc.InferRequestedOutput(name)])
    classes = [tritonclient.grpc.InferRequestedOutput("PROBABILITIES", class_count=2)]
    top = raw.infer(CLASSIFIER.name, [images], outputs=classes).as_numpy("PROBABILITIES")
    assert top[0][0].decode().count(":") == 2  # labels too
    assert len(audited(log)) == 2 * (len(CLASSIFIER.outputs) + 1)
    assert "audit log on" in derma_status(service).stdout

    before = len(audited(log))
    os.kill(service.stub("derma_biomedclip_0_0"), signal.SIGKILL)
    with DermaClient(service.url, timeout=120, retry_for=100) as client:
        answers = client.classify([jpeg(number) for number in range(4)])
    after = audited(log)[before:]
    assert {a.request_id for a in answers} <= {line["request_id"] for line in after}
    raw.close()


def test_an_audit_log_changes_no_answer(service, start_service, jpeg, tmp_path):
    """Not one bit; and each has one line, of what was answered."""
    log, images = tmp_path / "audit.jsonl", [jpeg(number) for number in range(12)]
    kept = start_service(f"--audit-log={log}")

    def answers(url):
        transport = GrpcTransport(url)
        try:
            return [transport.infer(image, 60, f"r{number}") for number, image in enumerate(images)]
        finally:
            transport.close()

    without, with_log = answers(service.url), answers(kept.url)
    for one, other in zip(without, with_log, strict=True):
        assert one.keys() == other.keys() == CLASSIFIER.outputs.keys()
        assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    lines = audited(log)
    assert [line["request_id"] for line in lines] == [f"r{number}" for number in range(len(images))]
    assert [line["image_sha256"] for line in lines] == [hashlib.sha256(one).hexdigest() for one in images]
    given = np.array([list(line["probabilities"].values()) for line in lines], np.float32)
    assert np.array_equal(given, np.stack([answer["PROBABILITIES"] for answer in with_log]))
    assert [Triage[line["triage"].upper()] for line in lines] == [int(a["TRIAGE"][0]) for a in with_log]
    bad = GrpcTransport(kept.url)
    for image in (b"no image", images[0][:200]):
        with pytest.raises(InvalidImage) as caught:
            bad.infer(image, 60)
        plain = GrpcTransport(service.url)
        with pytest.raises(InvalidImage) as expected:
            plain.infer(image, 60)
        plain.close()
        assert (type(caught.value), str(caught.value)) == (type(expected.value), str(expected.value))
    bad.close()
    assert len(audited(log)) == len(images)


def test_a_native_triton_writes_the_log_with_our_backend(repository, jpeg, tmp_path, monkeypatch):
    """An installation as a container has it: its own backend, which here is none, is not asked."""
    wheel = ROOT / ".triton" / "lib" / f"python{PYTHON}" / "site-packages"
    server, python = wheel / "pytriton" / "tritonserver", tmp_path / "triton" / "backends" / "python"
    shutil.copytree(server / "backends" / "python", python)
    shutil.copy2(server / "python_backend_stubs" / PYTHON / "triton_python_backend_stub", python)
    (python.parent / "onnxruntime").mkdir()
    (tmp_path / "triton" / "bin").mkdir()
    (tmp_path / "triton" / "bin" / "tritonserver").symlink_to(server / "bin" / "tritonserver")
    libraries = [str(wheel / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
    monkeypatch.setenv("LD_LIBRARY_PATH", ":".join(libraries))
    monkeypatch.setenv("PATH", f"{ROOT / '.triton' / 'bin'}:{os.environ['PATH']}")
    log = tmp_path / "audit.jsonl"
    service = start(repository, tmp_path / "state", f"--triton={tmp_path / 'triton'}", f"--audit-log={log}")
    try:
        with DermaClient(service.url) as client:
            answer = client.classify(jpeg(0))
            assert [line["request_id"] for line in audited(log)] == [answer.request_id]
            with pytest.raises(InvalidRequest, match="keeps an audit log: ask derma_classifier"):
                ModelControl(service.url).infer(NETWORK, np.zeros((1, 224, 224, 3), np.uint8))
            os.kill(service.stub("derma_biomedclip_0_0"), signal.SIGKILL)
            until(lambda: not client.ready(), 20, "readiness turns false")
            until(client.ready, 60, "the service recovers")
            client.classify(jpeg(0))
        assert len(audited(log)) == 2
    finally:
        stop(service)


def test_a_service_with_an_audit_log_rolls_back(repository, jpeg, tmp_path):
    """The roll-back asks the public model, as everybody must, so its drawn picture has a line too."""
    models, log = shutil.copytree(repository, tmp_path / "models"), tmp_path / "audit.jsonl"
    shutil.copytree(models / NETWORK.name / "1", models / NETWORK.name / "2")
    service = start(models, tmp_path / "state", f"--audit-log={log}")
    try:
        with DermaClient(service.url) as client:
            assert client.bundle().version == "2"
            whole = [sys.executable, "-m", "derma_export.rollout", "back", f"--repository={models}"]
            env = {**os.environ, "DERMA_URL": service.url}
            done = subprocess.run(whole, capture_output=True, text=True, timeout=120, env=env, check=False)
            assert done.returncode == 0, done.stderr
            assert client.bundle().version == "1"
            client.classify(jpeg(0))
        assert len(audited(log)) == 2
    finally:
        stop(service)


def test_a_canary_and_an_audit_log_exclude_each_other(repository, tmp_path):
    models = shutil.copytree(repository, tmp_path / "models")
    router.add(models, 20)
    router.ask(models, True)
    options = [f"--{name}-port={port}" for name, port in free_ports().items()]
    command = [*LAUNCHER, "serve", f"--repository={models}", f"--state={tmp_path / 'state'}", *options]
    done = subprocess.run(
        [*command, f"--audit-log={tmp_path / 'audit.jsonl'}"],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert (done.returncode, "end the canary first" in done.stderr) == (3, True), done.stdout + done.stderr


@pytest.fixture
def derma_status():
    def ask(service):
        command = [sys.executable, "-m", "derma_semantics", "status", "--url", service.url]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    return ask


def test_what_cannot_be_audited_is_not_answered(start_service, jpeg):
    service = start_service("--audit-log=/dev/full")
    with (
        DermaClient(service.url, retry_for=0) as client,
        pytest.raises(ServiceUnavailable, match="cannot be written, so there is no answer: No space left"),
    ):
        client.classify(jpeg(0))


def test_a_log_that_cannot_be_opened_ends_the_start(repository, tmp_path):
    options = [f"--{name}-port={port}" for name, port in free_ports().items()]
    command = [*LAUNCHER, "serve", f"--repository={repository}", f"--state={tmp_path / 'state'}", *options]
    done = subprocess.run(
        [*command, "--audit-log=/proc/audit.jsonl"],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stdout + done.stderr
