"""When a server counts as one that hangs; the real thing is in faults."""

import socket
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from derma_serving import liveness as pulse
from derma_serving.liveness import Pulse, hangs

SHORT = 0.3


@contextmanager
def listening(answer=None):
    """A server that answers every connection with these bytes, or takes it and is silent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held, ended = [], threading.Event()

        def serve():
            while not ended.is_set():
                connection, _ = server.accept()
                held.append(connection)
                if answer is not None and not ended.is_set():
                    connection.recv(1 << 16)
                    connection.sendall(answer)
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            socket.create_connection(server.getsockname()).close()
            thread.join(10)
            for connection in held:
                connection.close()


def test_silence_is_a_hang():
    with listening() as port:
        begun = time.monotonic()
        assert hangs("127.0.0.1", port, SHORT)
        assert SHORT <= time.monotonic() - begun < SHORT + 5


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
        b"no HTTP\r\n",
    ],
)
def test_any_answer_and_any_end_is_none(answer):
    with listening(answer) as port:
        assert not hangs("127.0.0.1", port, SHORT)


def test_nobody_there_is_none():
    with listening() as port:
        pass
    assert not hangs("127.0.0.1", port, SHORT)


@pytest.mark.parametrize("told_to_stop", [False, True])
def test_what_hangs_is_ended_unless_the_service_ends(monkeypatch, told_to_stop):
    stopping, killed = threading.Event(), threading.Event()
    settings = SimpleNamespace(local_host="127.0.0.1", http_port=1)
    server = SimpleNamespace(settings=settings, process=SimpleNamespace(kill=killed.set))

    def silent(host, port):
        if told_to_stop:
            stopping.set()
        return True

    monkeypatch.setattr(pulse, "hangs", silent)
    monkeypatch.setattr(pulse, "EVERY", 0.01)
    watcher = Pulse(server, stopping)
    watcher.start()
    try:
        assert killed.wait(0.2 if told_to_stop else 10) is not told_to_stop
    finally:
        stopping.set()
        watcher.join(10)
    assert not watcher.is_alive()
