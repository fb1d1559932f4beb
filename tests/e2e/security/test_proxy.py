"""What the proxy lets through.

It is the system's nginx with ``deploy/nginx/derma.conf``, its ports and paths replaced.
"""

import gzip
import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import urllib3
from PIL import Image
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc

from derma_semantics import TLS, DermaClient
from derma_semantics.domain.errors import AccessDenied, Overloaded, ServiceUnavailable
from derma_semantics.wire.admin import HEADER, admin_key
from derma_semantics.wire.transport import ModelControl

ROOT = Path(__file__).resolve().parents[3]
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
MODEL = "derma_classifier"
TOKEN = "5ee8c1d0" * 8


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
def start_proxy(service, files, listening, until, tmp_path_factory):
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


def tensor(image):
    """An image as one element of a BYTES tensor."""
    return len(image).to_bytes(4, "little") + image


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


def frame(kind, flags, stream, payload=b""):
    """One frame of HTTP/2 (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name, value):
    """One field of HPACK, neither indexed nor packed (RFC 7541, section 6.2.2)."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


def frames(line):
    """Kinds and flags of the frames that arrive on stream 1."""
    received = line.makefile("rb")
    while len(head := received.read(9)) == 9:
        received.read(int.from_bytes(head[:3], "big"))
        if int.from_bytes(head[5:], "big") == 1:
            yield head[3], head[4]


def send_raw(proxy, body, encodings):
    """One ModelInfer, in HTTP/2 by hand: no library of gRPC sends a header twice."""
    fields = {
        ":method": "POST",
        ":scheme": "https",
        ":path": "/inference.GRPCInferenceService/ModelInfer",
        ":authority": "127.0.0.1",
        "content-type": "application/grpc",
        "te": "trailers",
        "authorization": f"Bearer {TOKEN}",
    }
    asked = [*fields.items(), *(("grpc-encoding", name) for name in encodings)]
    head = b"".join(literal(name, value) for name, value in asked)
    trusted = ssl.create_default_context(cafile=proxy.ca)
    trusted.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", proxy.port), 30)
    with trusted.wrap_socket(plain, server_hostname="127.0.0.1") as line:
        line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
        line.sendall(frame(1, 4, 1, head) + frame(0, 1, 1, body))
        assert any(kind == 3 or flags & 1 for kind, flags in frames(line)), "no end of the answer"


@pytest.mark.parametrize("encodings", [["gzip"], ["identity", "gzip"], ["gzip", "identity"], ["", "gzip"]])
def test_a_packed_message_under_two_names_does_not_reach_triton(proxy, audit_log, jpeg, encodings):
    """Of several headers gRPC would obey the last. The same message as it is, is answered."""
    small = io.BytesIO()
    Image.open(io.BytesIO(jpeg(0))).resize((64, 64)).save(small, "JPEG")
    request = messages.ModelInferRequest(model_name=MODEL, raw_input_contents=[tensor(small.getvalue())])
    request.inputs.add(name="IMAGE", datatype="BYTES", shape=[1, 1])
    message = request.SerializeToString()
    packed = gzip.compress(message)
    assert len(message) < 16000  # one frame
    before = audit_log.read_text()
    send_raw(proxy, b"\1" + len(packed).to_bytes(4, "big") + packed, encodings)
    assert audit_log.read_text() == before
    send_raw(proxy, b"\0" + len(message).to_bytes(4, "big") + message, [])
    assert audit_log.read_text() != before


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


def test_the_proxy_bounds_requests(proxy):
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
    operators = ("POST repository/index", f"POST repository/models/{MODEL}/load", "GET models/stats")
    others = ("GET trace/setting", "GET logging", f"GET models/{MODEL}/../../logging", "GET health/live")
    for verb, path in map(str.split, (*operators, *others)):
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


def test_the_proxy_keeps_nothing_of_a_photograph(proxy, until, jpeg):
    before, log = time.time(), proxy.folder / "access.log"
    known = len(log.read_text())
    name = proxy.classify(jpeg(0)).headers["x-request-id"]
    until(lambda: name in log.read_text()[known:], 10, "nginx writes its line")
    line = log.read_text().splitlines()[-1].split()
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
    body = head + tensor(jpeg(0))
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
