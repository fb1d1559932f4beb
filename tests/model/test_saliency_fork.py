"""A forked process asks the sidecar over connections of its own."""

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from derma_semantics.saliency import HttpSaliency


@pytest.fixture
def sidecar():
    """Answers ``/readyz`` with the address that asks."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = b'{"asked_from": %d}' % self.client_address[1]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_fork_opens_its_own(sidecar):
    saliency = HttpSaliency(sidecar)
    ours = saliency.ready()["asked_from"]
    assert saliency.ready()["asked_from"] == ours  # kept alive
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(saliency.ready()["asked_from"]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        theirs = int(pipe.read())
    os.waitpid(child, 0)
    assert theirs != ours
    assert saliency.ready()["asked_from"] == ours
    saliency.close()
