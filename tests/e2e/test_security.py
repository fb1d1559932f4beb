"""Who gets in: the admin key, TLS and certificates, tokens at the proxy; and where all parts listen.

The proxy is the system's nginx with ``deploy/nginx/derma.conf``, its ports and paths replaced.
"""

import gzip
import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import urllib3
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from derma_semantics import TLS, DermaClient
from derma_semantics.admin import GRPC_HEADER, HEADER, admin_key
from derma_semantics.errors import AccessDenied, Overloaded, ServiceUnavailable, UnsupportedFormat
from derma_semantics.saliency import HttpSaliency
from derma_semantics.transport import ModelControl

ROOT = Path(__file__).resolve().parents[2]
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
MODEL = "derma_classifier"
TOKEN = "5ee8c1d0" * 8

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
def files(tmp_path_factory):
    """Certificates as docs/security.md makes them, and those of a stranger, whom another CA signed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates")
    page = (ROOT / "docs" / "security.md").read_text()
    block = page.partition("```sh certificates\n")[2].partition("```")[0]
    maker = ROOT / "deploy" / "certificates.sh"
    folder = tmp_path_factory.mktemp("tls")
    for script in (block, "deploy/certificates.sh other stranger"):
        command = ["sh", "-e", "-c", script.replace("deploy/certificates.sh", str(maker))]
        subprocess.run(command, check=True, timeout=60, capture_output=True, cwd=folder)
    return folder / "certificates"


@pytest.fixture(scope="module")
def audit_log(tmp_path_factory):
    return tmp_path_factory.mktemp("audit") / "audit.jsonl"


@pytest.fixture(scope="module")
def service(start_lasting, mini, audit_log):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "AIP_MODE", "PREDICTION"
        )  # which has Triton open a door for Vertex AI unless it is told not to
        return start_lasting(f"--bundle={mini}", f"--audit-log={audit_log}")


@pytest.fixture(scope="module")
def stub(service):
    with grpc.insecure_channel(service.url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def ask_http(verb, url, **options):
    """One request on a connection of its own, which is closed: Triton waits for open ones when it ends."""
    with urllib3.PoolManager(retries=False) as pool:
        return pool.request(verb, url, timeout=60, **options)


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
def test_http_of_operators_needs_the_key(service, verb, path):
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


def listening(pids):
    """Addresses on which these processes accept connections."""
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                sockets.add(str(descriptor.readlink()))
            except FileNotFoundError:
                continue
    found = set()
    for table, width in (("tcp", 4), ("tcp6", 16)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                address, port = fields[1].split(":")
                # Words of four bytes, each in this machine's order.
                raw = b"".join(bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, 2 * width, 8))
                family = socket.AF_INET if width == 4 else socket.AF_INET6
                found.add((socket.inet_ntop(family, raw).removeprefix("::ffff:"), int(port, 16)))
    return found


def test_all_listens_on_127_0_0_1_alone(service, until):
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


def test_the_parts_of_a_service_with_tls_know_each_other(mutual, files, until, jpeg):
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


@dataclass
class Proxy:
    """An nginx before the service."""

    port: int
    folder: Path
    ca: Path

    @property
    def url(self):
        return f"127.0.0.1:{self.port}"

    def client(self, token=TOKEN, **options):
        saliency = f"https://{self.url}"
        return DermaClient(self.url, tls=TLS(self.ca), token=token, saliency_url=saliency, **options)

    def http(self, verb, path, body=None, token=TOKEN, **headers):
        known = {"Authorization": f"Bearer {token}"} if token else {}
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        with urllib3.PoolManager(ca_certs=str(self.ca), retries=False) as pool:
            url = f"https://{self.url}/{path}"
            return pool.request(verb, url, body=body, headers=known | headers, timeout=30)

    def classify(self, body, kind="application/octet-stream", **more):
        path = f"v2/models/{MODEL}/infer"
        return self.http(
            "POST", path, body, Content_Type=kind, **{"Inference_Header_Content_Length": "0"} | more
        )


@pytest.fixture(scope="module")
def start_proxy(service, files, until, tmp_path_factory):
    if NGINX is None:
        pytest.skip("nginx is not installed")
    running = []

    def start(**changes):
        folder = tmp_path_factory.mktemp("nginx")
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        text = (ROOT / "deploy" / "nginx" / "derma.conf").read_text()
        ports = {
            f":{8000 + n}": f":{service.ports[name]}"
            for n, name in ((0, "http"), (1, "grpc"), (3, "saliency"))
        }
        places = {
            "/etc/derma/server": f"{files}/server",
            "/etc/derma": str(folder),
            "/var/log/nginx": str(folder),
            "listen 8443": f"listen 127.0.0.1:{port}",
        }
        for old, new in (ports | places | changes).items():
            assert old in text
            text = text.replace(old, new)
        (folder / "derma.conf").write_text(text)
        (folder / "tokens.map").write_text(f'"Bearer {TOKEN}" alice;\n')
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        spools = " ".join(f"{kind}_temp_path {folder}/spool;" for kind in kinds)
        (folder / "nginx.conf").write_text(
            f"pid {folder}/pid; daemon off; worker_processes 1; events {{}}\n"
            f"http {{ {spools} include {folder}/derma.conf; }}\n"
        )
        command = [NGINX, "-c", str(folder / "nginx.conf"), "-e", str(folder / "start.log")]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        running.append(process)
        proxy = Proxy(port, folder, files / "ca.pem")
        until(lambda: listening([process.pid]) or process.poll() is not None, 20, "nginx listens")
        assert process.poll() is None, (folder / "start.log").read_text()
        return proxy

    yield start
    for process in running:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def proxy(start_proxy):
    return start_proxy()


@pytest.mark.parametrize("token", [None, "0" * 64, TOKEN[:-1], f"{TOKEN}0"])
def test_the_proxy_asks_for_a_token(proxy, jpeg, token):
    with proxy.client(token=token) as client:
        asks = (client.classify, [jpeg(0)]), (client.explain, [jpeg(0), "a mole"])
        for ask, given in (*asks, (client.bundle, []), (client.ready, [])):
            with pytest.raises(AccessDenied):
                ask(*given)
    refused = proxy.classify(jpeg(0), token=token)
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_a_caller_with_a_token_classifies_and_explains(proxy, service, jpeg):
    with proxy.client() as client, DermaClient(service.url) as direct:
        answer = client.classify(jpeg(0))
        assert answer.risk == pytest.approx(direct.classify(jpeg(0)).risk, abs=1e-6)
        assert answer.bundle.name == "derma-mini"
        assert client.ready()
        assert client.explain(jpeg(0), "signs of melanoma").bundle_digest == answer.bundle.digest
    answered = proxy.classify(jpeg(0))
    assert (answered.status, b'"PROBABILITIES"' in answered.data) == (200, True)


DEEP = b'{"inputs":' + b"[" * 5_000_000
CRASHING = {
    "another type": (b"a" * 5_000_000, {"kind": "application/x-www-form-urlencoded"}),
    "text": (b"a" * 5_000_000, {"kind": "text/plain"}),
    "two types": (b"a" * 5_000_000, {"kind": "application/octet-stream, x"}),
    "deep JSON": (DEEP, {"kind": "application/json"}),
    "a head of deep JSON": (DEEP, {"Inference_Header_Content_Length": str(len(DEEP))}),
    "no length of a head": (DEEP, {"Inference_Header_Content_Length": ""}),
    "a length that is no number": (b"a", {"Inference_Header_Content_Length": "99999999999"}),
    "a negative length": (b"a", {"Inference_Header_Content_Length": "-1"}),
    "zeros, packed": (gzip.compress(bytes(1 << 26)), {"Content_Encoding": "gzip"}),
}


@pytest.mark.parametrize("crashing", CRASHING)
def test_a_body_that_would_crash_triton_does_not_reach_it(proxy, service, jpeg, crashing):
    body, more = CRASHING[crashing]
    (server,) = [pid for pid, command in service.processes() if "bin/tritonserver " in command]
    for _ in range(3):
        refused = proxy.classify(body, **more)
        assert (refused.status, "octet-stream" in refused.json()["error"]) == (415, True)
    assert [pid for pid, command in service.processes() if "bin/tritonserver " in command] == [server]
    assert proxy.classify(jpeg(0)).status == 200


def test_packed_messages_do_not_reach_triton(proxy, jpeg):
    request = messages.ModelInferRequest(model_name=MODEL, raw_input_contents=[jpeg(0)])
    credentials = grpc.ssl_channel_credentials(proxy.ca.read_bytes())
    with grpc.secure_channel(proxy.url, credentials) as channel, pytest.raises(grpc.RpcError) as caught:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(
            request,
            timeout=30,
            metadata=(("authorization", f"Bearer {TOKEN}"),),
            compression=grpc.Compression.Gzip,
        )
    assert (caught.value.code().name, "compression" in caught.value.details()) == ("UNIMPLEMENTED", True)


def test_many_chunks_reach_triton_as_one_body(proxy, service, jpeg):
    """Triton 2.51 has a place on its stack for each chunk (CVE-2025-23310): so many end it."""
    (server,) = [pid for pid, command in service.processes() if "bin/tritonserver " in command]
    chunks = b"1\r\na\r\n" * 1_000_000 + b"0\r\n\r\n"
    head = (
        f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: derma\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: application/octet-stream\r\nInference-Header-Content-Length: 0\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    trusted = ssl.create_default_context(cafile=proxy.ca)
    plain = socket.create_connection(("127.0.0.1", proxy.port), 60)
    with trusted.wrap_socket(plain, server_hostname="127.0.0.1") as line:
        line.sendall(head.encode() + chunks)
        answer = b"".join(iter(lambda: line.recv(1 << 16), b""))
    assert b"UnsupportedFormat" in answer
    assert [pid for pid, command in service.processes() if "bin/tritonserver " in command] == [server]


def test_the_proxy_bounds_requests(proxy, stub):
    big = b"\xff\xd8" + bytes(23 << 20)
    refused = proxy.classify(big)
    assert (refused.status, "20 MiB" in refused.json()["error"]) == (413, True)
    credentials = grpc.ssl_channel_credentials(proxy.ca.read_bytes())
    with grpc.secure_channel(proxy.url, credentials, [("grpc.max_send_message_length", -1)]) as channel:
        request = messages.ModelInferRequest(model_name=MODEL, raw_input_contents=[big])
        with pytest.raises(grpc.RpcError) as caught:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(
                request, timeout=30, metadata=(("authorization", f"Bearer {TOKEN}"),)
            )
    assert (caught.value.code().name, "ImageTooLarge" in caught.value.details()) == ("INVALID_ARGUMENT", True)


def test_operators_do_not_come_through_the_proxy(proxy):
    """Not even with the admin key."""
    with pytest.raises(AccessDenied, match="does not pass the proxy"):
        ModelControl(proxy.url, tls=TLS(proxy.ca), token=TOKEN).index()
    for verb, path in (*CLOSED_HTTP, ("GET", f"models/{MODEL}/../../logging"), ("GET", "health/live")):
        assert proxy.http(verb, f"v2/{path}", **{HEADER: admin_key()}).status == 404
    for path in ("metrics", "docs", "openapi.json", "", f"v2/models/{MODEL}/infer%2f..%2f..%2f..%2flogging"):
        assert proxy.http("GET", path).status == 404


def test_the_proxy_slows_a_caller_down(start_proxy, jpeg):
    proxy = start_proxy(**{"rate=100r/s": "rate=2r/s", "burst=200": "burst=2"})
    with proxy.client(retry_for=0) as client:
        outcomes = client.classify([jpeg(0)] * 8, return_exceptions=True)
        assert {Overloaded} == {type(o) for o in outcomes if isinstance(o, Exception)}
    assert 429 in {proxy.classify(jpeg(0)).status for _ in range(5)}
    with proxy.client(retry_for=20) as patient:
        patient.classify(jpeg(0))


def test_a_service_that_is_down_is_unavailable(start_proxy, service, ports, jpeg):
    proxy = start_proxy(**{f":{service.ports['grpc']}": f":{ports['grpc']}"})
    with proxy.client(retry_for=0) as client, pytest.raises(ServiceUnavailable):
        client.classify(jpeg(0))


def test_the_proxy_keeps_nothing_of_a_photograph(proxy, jpeg):
    before = time.time()
    proxy.classify(jpeg(0))
    line = (proxy.folder / "access.log").read_text().splitlines()[-1].split()
    assert len(line[7]) == 32  # the request's id
    assert line[1:] == ['"alice"', "127.0.0.1", f"/v2/models/{MODEL}/infer", "200", *line[5:8]]
    texts = b"".join(path.read_bytes() for path in proxy.folder.glob("*.log"))
    assert TOKEN.encode() not in texts
    assert not [path for path in (proxy.folder / "spool").rglob("*") if path.stat().st_mtime > before]


def test_the_audit_log_names_the_caller_that_the_proxy_knows(proxy, audit_log, jpeg):
    """Not the one that a caller claims to be, in headers or in the request itself."""
    claims = ("derma-caller", "Derma-Caller", "DERMA-CALLER")
    begin = len(audit_log.read_text().splitlines())
    for claim in claims:
        assert proxy.classify(jpeg(0), **{claim: "mallory"}).headers["x-request-id"]
    head = json.dumps({
        "parameters": dict.fromkeys(claims, "mallory"),
        "inputs": [{"name": "IMAGE", "datatype": "BYTES", "shape": [1, 1],
                    "parameters": {"binary_data_size": len(jpeg(0)) + 4}}],
    }).encode()  # fmt: skip
    body = head + len(jpeg(0)).to_bytes(4, "little") + jpeg(0)
    sent = {"Content_Type": "application/octet-stream", "Inference_Header_Content_Length": str(len(head))}
    assert proxy.http("POST", f"v2/models/{MODEL}/infer", body, **sent).status == 200
    request = messages.ModelInferRequest(model_name=MODEL, raw_input_contents=[body[len(head) :]])
    request.inputs.add(name="IMAGE", datatype="BYTES", shape=[1, 1])
    for claim in claims:
        request.parameters[claim].string_param = "mallory"
    metadata = (("authorization", f"Bearer {TOKEN}"), ("derma-caller", "mallory"), ("x-request-id", "mine"))
    credentials = grpc.ssl_channel_credentials(proxy.ca.read_bytes())
    with grpc.secure_channel(proxy.url, credentials) as channel:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30, metadata=metadata)
    lines = [json.loads(line) for line in audit_log.read_text().splitlines()[begin:]]
    assert [line["caller"] for line in lines] == ["alice"] * 5
    assert lines[-1]["request_id"] == "mine"


@pytest.fixture(scope="module")
def inner(service):
    """Asks one model for what it makes of some inputs."""
    raw = tritonclient.grpc.InferenceServerClient(service.url)
    kinds = {"IMAGE": "BYTES", "PIXELS": "UINT8", "TICKET": "UINT8"}

    def ask(model, **inputs):
        given = []
        for name, array in inputs.items():
            given.append(tritonclient.grpc.InferInput(name, array.shape, kinds[name]))
            given[-1].set_data_from_numpy(array)
        return raw.infer(model, given, client_timeout=60)

    yield ask
    raw.close()


def encoded(*images):
    return np.array([[image] for image in images], object)


def test_no_inner_model_answers_without_the_audit_log(inner, audit_log, jpeg):
    """Pixels are answered with the ticket of their image alone, and then with a line that names it."""
    begin = len(audit_log.read_text().splitlines())
    made = inner("derma_preprocess", IMAGE=encoded(jpeg(0), jpeg(1)))
    pixels, tickets = made.as_numpy("PIXELS"), made.as_numpy("TICKET")
    invented = np.random.default_rng(0).integers(0, 256, tickets.shape, np.uint8)
    claimed = tickets.copy()
    claimed[:, :32] = invented[:, :32]  # another image's digest, under a true signature
    refused = [
        {"PIXELS": pixels},
        {"PIXELS": pixels[:1]},
        {"PIXELS": pixels, "TICKET": np.zeros_like(tickets)},
        {"PIXELS": pixels, "TICKET": invented},
        {"PIXELS": pixels, "TICKET": claimed},
        {"PIXELS": pixels, "TICKET": tickets[::-1].copy()},
        {"PIXELS": pixels, "TICKET": np.stack([tickets[0], invented[1]])},
        {"PIXELS": pixels[:1] ^ 1, "TICKET": tickets[:1]},
    ]
    reason = "keeps an audit log: ask derma_classifier"
    for given in refused:
        with pytest.raises(InferenceServerException, match=reason) as caught:
            inner("derma_biomedclip", **given)
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    for model in ("derma_canary", "derma_biomedclip_candidate"):
        with pytest.raises(InferenceServerException, match="unknown model"):
            inner(model, PIXELS=pixels)
    assert len(audit_log.read_text().splitlines()) == begin
    answer = inner("derma_biomedclip", PIXELS=pixels, TICKET=tickets)
    lines = [json.loads(line) for line in audit_log.read_text().splitlines()[begin:]]
    assert [line["image_sha256"] for line in lines] == [
        hashlib.sha256(jpeg(number)).hexdigest() for number in range(2)
    ]
    given = [list(line["probabilities"].values()) for line in lines]
    assert np.array_equal(np.array(given, np.float32), answer.as_numpy("PROBABILITIES"))


def test_refused_pixels_harm_no_other_of_their_batch(service, inner, audit_log, jpeg):
    """Those with a ticket are answered beside them."""
    pixels = inner("derma_preprocess", IMAGE=encoded(jpeg(0))).as_numpy("PIXELS")
    begin = len(audit_log.read_text().splitlines())

    def intrude(_):
        with pytest.raises(InferenceServerException, match="keeps an audit log"):
            inner("derma_biomedclip", PIXELS=pixels)

    with ThreadPoolExecutor(8) as pool, DermaClient(service.url) as client:
        refused = pool.map(intrude, range(64))
        answers = client.classify([jpeg(number) for number in range(32)])
        assert len(list(refused)) == 64
    lines = [json.loads(line) for line in audit_log.read_text().splitlines()[begin:]]
    assert sorted(line["request_id"] for line in lines) == sorted(answer.request_id for answer in answers)


def by_http(service, image, members, header=""):
    """Asks with an image and further members of the question's JSON, of any bytes."""
    tensor = len(image).to_bytes(4, "little") + image
    given = b'{"name":"IMAGE","shape":[1,1],"datatype":"BYTES","parameters":{"binary_data_size":%d}}'
    question = b'{%s,"inputs":[%s]}' % (members, given % len(tensor))
    headers = {"Inference-Header-Content-Length": str(len(question)), "x-request-id": header}
    url = f"{service.http}/v2/models/{MODEL}/infer"
    return ask_http("POST", url, body=question + tensor, headers=headers)


UNREADABLE = {
    "id": (b'"id":"\xff\xfe"', ""),
    "parameter": (b'"id":"a","parameters":{"note":"\xff\xfe"}', ""),
    "name of a parameter": (b'"id":"a","parameters":{"\xff":"note"}', ""),
    "header": (b'"id":"a"', "\xff\xfe"),
}


@pytest.mark.parametrize("unreadable", UNREADABLE.values(), ids=UNREADABLE)
def test_a_question_that_cannot_be_named_harms_no_other_of_its_batch(service, audit_log, jpeg, unreadable):
    """It alone is refused, as what it says of itself is no text."""
    begin = len(audit_log.read_text().splitlines())
    refused, answered = [], []
    with DermaClient(service.url, retry_for=0) as client, ThreadPoolExecutor(16) as pool:
        for number in range(32):
            refused.append(pool.submit(by_http, service, jpeg(0), *unreadable))
            answered.append(pool.submit(client.classify, jpeg(number)))
    answers, told = [one.result() for one in answered], [one.result() for one in refused]
    assert {(one.status, "must be UTF-8" in one.data.decode()) for one in told} == {(400, True)}
    lines = [json.loads(line) for line in audit_log.read_text().splitlines()[begin:]]
    assert sorted(line["request_id"] for line in lines) == sorted(answer.request_id for answer in answers)


def test_the_secret_of_the_tickets_stays_with_triton(service):
    """In the environment of its processes, which other accounts cannot read; in no file, no answer."""
    (server,) = [pid for pid, command in service.processes() if "bin/tritonserver " in command]
    environment = Path(f"/proc/{server}/environ").read_bytes()
    secret = environment.partition(b"DERMA_AUDIT_SECRET=")[2].partition(b"\0")[0]
    assert len(secret) == 64
    assert Path(f"/proc/{server}/environ").stat().st_mode & 0o077 == 0
    assert secret not in Path(f"/proc/{service.launcher.pid}/environ").read_bytes()
    assert not [pid for pid in service.sidecars() if secret in Path(f"/proc/{pid}/environ").read_bytes()]
    assert not [path for path in service.state.rglob("*") if path.is_file() and secret in path.read_bytes()]
    for model in ("derma_classifier", "derma_preprocess", "derma_biomedclip"):
        for path in ("config", ""):
            told = ask_http("GET", f"{service.http}/v2/models/{model}/{path}".rstrip("/"))
            assert (told.status, secret in told.data) == (200, False)


@pytest.fixture
def canary():
    """An address to which nothing may connect."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        one.setblocking(False)
        yield f"http://127.0.0.1:{one.getsockname()[1]}"
        with pytest.raises(BlockingIOError):
            one.accept()


def references(url):
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}/a.png"/></svg>'
    return [url, f"{url}/a.png", "file:///etc/passwd", "/etc/passwd", "../../../etc/passwd", svg]


def test_addresses_and_paths_are_not_followed(service, canary, tmp_path):
    """Triton and the sidecar take bytes: what names a place is no image."""
    saliency = HttpSaliency(service.saliency)
    with DermaClient(service.url) as client:
        for text in references(canary):
            for ask in (client.classify, lambda data: saliency.explain(data, prompt="a mole")):
                with pytest.raises(UnsupportedFormat):
                    ask(text.encode())
    form = {"image": canary, "prompt": "a mole"}
    answer = ask_http("POST", f"{service.saliency}/v1/saliency", fields=form)
    assert (answer.status, "no file named image" in answer.json()["message"]) == (422, True)
    saliency.close()


def test_names_of_files_lead_nowhere(service, jpeg, tmp_path):
    name = f"../../../../../../..{tmp_path}/planted.jpg"
    form = {"image": (name, jpeg(0)), "condition": "MEL", "format": "json"}
    answer = ask_http("POST", f"{service.saliency}/v1/saliency", fields=form)
    assert (answer.status, "planted" in answer.data.decode()) == (200, False)
    assert list(tmp_path.iterdir()) == []
    for path in ("..%2f..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "docs/../../etc/passwd"):
        for base in (service.saliency, f"{service.http}/v2/models"):
            assert ask_http("GET", f"{base}/{path}").status in (400, 404)


def test_html_in_a_prompt_stays_text(service, jpeg):
    """The sidecar answers JSON, PNG or npy, never HTML."""
    script = "<script>alert(1)</script>"
    for kind, expected in (("json", "application/json"), ("png", "image/png"), ("npy", "application/x-npy")):
        form = {"image": ("image", jpeg(0)), "prompt": script, "format": kind}
        answer = ask_http("POST", f"{service.saliency}/v1/saliency", fields=form)
        assert (answer.status, answer.headers["content-type"]) == (200, expected)
        assert (script.encode() in answer.data) == (kind == "json")
    refused = {"image": ("image", jpeg(0)), "prompt": "a", "format": script}
    answer = ask_http("POST", f"{service.saliency}/v1/saliency", fields=refused)
    assert (answer.status, answer.headers["content-type"]) == (422, "application/json")
