"""``derma-train fetch-base`` against a hub on 127.0.0.1 with the real hub's protocol."""

import hashlib
import http.server
import threading

import pytest

from derma_training.bundle import BundleError
from derma_training.network.fetch import FILES, HubFile, fetch_base

CONTENT = {"org/model/config.json": b"{}", "org/model/weights.bin": b"w" * 100_000}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """``/<repository>/resolve/<revision>/<file>`` with the headers huggingface_hub reads."""

    requests: list[str] = []

    def do_HEAD(self):
        self.reply(body=False)

    def do_GET(self):
        self.reply(body=True)

    def reply(self, body):
        owner, name, _, _, file = self.path.strip("/").split("/", 4)
        content = CONTENT[f"{owner}/{name}/{file}"]
        self.requests.append(f"{self.command} {file}")
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    Hub.requests.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


def files(digest):
    return (
        HubFile("org/model", "config.json", "text/config.json"),
        HubFile("org/model", "weights.bin", "weights.bin", digest),
    )


def test_downloads_checks_and_does_not_repeat(hub, tmp_path):
    right = files(hashlib.sha256(CONTENT["org/model/weights.bin"]).hexdigest())
    fetch_base(tmp_path, files=right, endpoint=hub)
    assert (tmp_path / "text" / "config.json").read_bytes() == b"{}"
    assert (tmp_path / "weights.bin").read_bytes() == CONTENT["org/model/weights.bin"]
    assert not (tmp_path / ".download").exists()
    assert "GET weights.bin" in Hub.requests
    Hub.requests.clear()
    fetch_base(tmp_path, files=right, endpoint=hub)
    assert Hub.requests == []


def test_wrong_digest_is_refused(hub, tmp_path):
    with pytest.raises(BundleError, match="weights.bin has sha256"):
        fetch_base(tmp_path, files=files("0" * 64), endpoint=hub)
    assert not (tmp_path / "weights.bin").exists()


def test_the_official_checkpoint_is_pinned():
    weights = next(f for f in FILES if f.name == "open_clip_pytorch_model.bin")
    assert weights.sha256 == "52cc993c5c5ff962bd0c60931874bc001e7e9b41666a385530f4a036294576be"
