"""Who gets in: the admin key, TLS and certificates; and where all parts listen."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc

from derma_semantics import TLS, DermaClient
from derma_semantics.domain.errors import AccessDenied, ServiceUnavailable
from derma_semantics.wire.admin import GRPC_HEADER, HEADER, admin_key
from derma_semantics.wire.transport import ModelControl

MODEL = "derma_classifier"

CLOSED_GRPC = {
    "RepositoryIndex": messages.RepositoryIndexRequest(),
    "RepositoryModelLoad": messages.RepositoryModelLoadRequest(model_name=MODEL),
    "RepositoryModelUnload": messages.RepositoryModelUnloadRequest(model_name="none"),
    "ModelStatistics": messages.ModelStatisticsRequest(),
    "SystemSharedMemoryStatus": messages.SystemSharedMemoryStatusRequest(),
    "SystemSharedMemoryUnregister": messages.SystemSharedMemoryUnregisterRequest(),
    "CudaSharedMemoryStatus": messages.CudaSharedMemoryStatusRequest(),
    "TraceSetting": messages.TraceSettingRequest(),
    "LogSettings": messages.LogSettingsRequest(),
}
CLOSED_HTTP = (
    ("POST", "repository/index"),
    ("POST", f"repository/models/{MODEL}/load"),
    ("GET", "models/stats"),
    ("GET", f"models/{MODEL}/stats"),
    ("GET", "systemsharedmemory/status"),
    ("POST", "systemsharedmemory/unregister"),
    ("GET", "trace/setting"),
    ("GET", "logging"),
)


@pytest.fixture(scope="module")
def stub(service):
    with grpc.insecure_channel(service.url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def refusal(call, request, key=None):
    """What gRPC answers, as text; empty where it does what is asked."""
    try:
        call(request, timeout=60, metadata=((GRPC_HEADER, key),) if key else ())
    except grpc.RpcError as exc:
        return exc.details()
    return ""


@pytest.mark.parametrize("method", CLOSED_GRPC)
def test_grpc_of_operators_needs_the_key(stub, method):
    call, request = getattr(stub, method), CLOSED_GRPC[method]
    for key in (None, "another-key-of-16"):
        assert f"restricted, expecting header '{GRPC_HEADER}'" in refusal(call, request, key)
    assert "restricted" not in refusal(call, request, admin_key())


@pytest.mark.parametrize(("verb", "path"), CLOSED_HTTP)
def test_http_of_operators_needs_the_key(service, ask_http, verb, path):
    def answer(**headers):
        return ask_http(verb, f"{service.http}/v2/{path}", headers=headers)

    for key in ({}, {HEADER: "another-key-of-16"}):
        refused = answer(**key)
        assert (refused.status, "restricted" in refused.json()["error"]) == (403, True)
    assert answer(**{HEADER: admin_key()}).status in (200, 400)


def test_callers_need_no_key(service, stub, jpeg, monkeypatch):
    """Inference, readiness and what the answer's weights are called; ``derma status`` lists no models."""
    with DermaClient(service.url) as client:
        assert client.classify(jpeg(0)).bundle.name == "derma-mini"
        assert client.ready()
    monkeypatch.delenv("DERMA_ADMIN_KEY")
    with pytest.raises(AccessDenied, match="DERMA_ADMIN_KEY_FILE"):
        ModelControl(service.url).index()
    command = [sys.executable, "-m", "derma_semantics", "status", "--json", f"--url={service.url}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    report = json.loads(done.stdout)
    assert (done.returncode, report["ready"], report["models"]) == (0, True, None)
    monkeypatch.setenv("DERMA_ADMIN_KEY_FILE", str(service.state / "admin.key"))
    assert {row["name"] for row in ModelControl(service.url).index()} > {MODEL}


def test_the_key_stays_with_the_launcher(service):
    """In a file for its owner alone; not in logs, nor in the environment of what handles photographs."""
    file = service.state / "admin.key"
    assert (file.read_text(), file.stat().st_mode & 0o777) == (admin_key(), 0o600)
    key = admin_key().encode()
    assert not [log for log in service.state.glob("*.log") if key in log.read_bytes()]
    others = [pid for pid, _ in service.processes()] + service.sidecars()
    assert len(others) >= 4
    assert not [pid for pid in others if key in Path(f"/proc/{pid}/environ").read_bytes()]


def test_all_listens_on_127_0_0_1_alone(service, listening, until):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-m", "derma_semantics", "app", f"--port={port}"]
    page = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: listening([page.pid]), 60, "the web app listens")
        parts = [
            service.launcher.pid,
            page.pid,
            *(pid for pid, _ in service.processes()),
            *service.sidecars(),
        ]
        expected = {*service.ports.values(), port}
        assert listening(parts) == {("127.0.0.1", number) for number in expected}
    finally:
        page.terminate()
        page.wait(30)


@pytest.fixture(scope="module")
def mutual(start_lasting, files, mini):
    """A service that wants to see certificates."""
    pair = [f"--tls-certificate={files}/server.pem", f"--tls-key={files}/server.key"]
    return start_lasting(*pair, f"--tls-ca={files}/ca.pem", f"--bundle={mini}")


def test_mutual_tls(mutual, files, jpeg):
    own = TLS(files / "ca.pem", files / "alice.pem", files / "alice.key")
    with DermaClient(mutual.url, tls=own) as client:
        assert client.classify(jpeg(0)).bundle.name == "derma-mini"
    stranger = TLS(
        files / "ca.pem", files.parent / "other" / "stranger.pem", files.parent / "other" / "stranger.key"
    )
    for tls in (stranger, TLS(files / "ca.pem"), TLS(files.parent / "other" / "ca.pem"), None):
        with DermaClient(mutual.url, tls=tls, retry_for=0) as client, pytest.raises(ServiceUnavailable):
            client.classify(jpeg(0))


def test_the_parts_of_a_service_with_tls_know_each_other(mutual, files, ask_http, until, jpeg):
    """The supervisor replaces a dead process, the sidecar compares weights, the commands find their way."""
    own = TLS(files / "ca.pem", files / "alice.pem", files / "alice.key")
    with DermaClient(mutual.url, tls=own) as client:
        os.kill(mutual.stub("derma_biomedclip_0_0"), signal.SIGKILL)
        until(lambda: not client.ready(), 5, "readiness turns false")
        until(client.ready, 15, "the service recovers")
        client.classify(jpeg(0))
    report = ask_http("GET", f"{mutual.saliency}/readyz").json()
    assert report["triton"] == "same"
    pair = {"DERMA_CERT": str(files / "alice.pem"), "DERMA_KEY": str(files / "alice.key")}
    command = [sys.executable, "-m", "derma_semantics", "status", "--json", f"--url={mutual.url}"]
    env = {**os.environ, **pair, "DERMA_CA": str(files / "ca.pem")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)
    report = json.loads(done.stdout)
    assert (done.returncode, report["ready"], len(report["models"])) == (0, True, 3), done.stderr


def test_a_command_run_with_tls_is_told_how_to_connect(launcher, ports, repository, files, tmp_path, jpeg):
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    options = [f"--{name}-port={port}" for name, port in ports.items()]
    pair = [f"--tls-certificate={files}/server.pem", f"--tls-key={files}/server.key", "--tls-name=localhost"]
    classify = [sys.executable, "-m", "derma_semantics", "classify", str(tmp_path / "a.jpg"), "--json"]
    state = [f"--repository={repository}", f"--state={tmp_path / 'state'}"]
    command = [*launcher, "run", *state, *options, *pair, "--", *classify]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    (answer,) = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert answer["bundle"] == "derma-mini"
