"""An audit log holds every answer that was given: of parts, beside a dead writer, on a full disk."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tritonclient.grpc

from derma_semantics import DermaClient
from derma_semantics.contract import CLASSIFIER
from derma_semantics.errors import ServiceUnavailable
from tests.e2e.conftest import LAUNCHER, free_ports


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
    os.kill(service.stub("derma_audit_0_0"), signal.SIGKILL)
    with DermaClient(service.url, timeout=120, retry_for=100) as client:
        answers = client.classify([jpeg(number) for number in range(4)])
    after = audited(log)[before:]
    assert {a.request_id for a in answers} <= {line["request_id"] for line in after}
    raw.close()


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
