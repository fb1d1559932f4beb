"""Photographs and tokens do not pass a proxy that nobody asked for."""

import socket
import threading

import pytest

from derma_semantics import DermaClient
from derma_semantics.domain.errors import DermaError
from derma_semantics.wire.connection import Connection


@pytest.fixture
def proxy(monkeypatch):
    """Records the first line of every connection, and answers none."""
    seen, server = [], socket.create_server(("127.0.0.1", 0))

    def listen():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                seen.append(connection.recv(1024).split(b"\r\n")[0].decode())

    threading.Thread(target=listen, daemon=True).start()
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.getsockname()[1]}")
    yield seen
    server.close()


@pytest.mark.parametrize("asked", ["0", "1"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "192.168.7.7"])
def test_this_machine_and_private_addresses_need_none(proxy, monkeypatch, host, asked):
    monkeypatch.setenv("DERMA_PROXY", asked)
    with DermaClient(f"{host}:9", timeout=1.0) as client, pytest.raises(DermaError):
        client.classify(b"\xff\xd8\xff")
    assert proxy == []


def test_a_remote_address_passes_one_only_where_that_is_asked(proxy, monkeypatch, until):
    for asked in ("0", "1"):
        monkeypatch.setenv("DERMA_PROXY", asked)
        assert Connection("classifier.example:9").proxied == (asked == "1")
        with DermaClient("classifier.example:9", timeout=1.0) as client, pytest.raises(DermaError):
            client.classify(b"\xff\xd8\xff")
    until(lambda: proxy, 5)
    assert proxy[0].startswith("CONNECT classifier.example:9")


@pytest.fixture
def until():
    def wait(condition, seconds):
        event = threading.Event()
        for _ in range(int(seconds / 0.05)):
            if condition():
                return
            event.wait(0.05)
        pytest.fail(f"not within {seconds} s")

    return wait
