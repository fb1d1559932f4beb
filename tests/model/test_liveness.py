"""The liveness probe of Triton; the real thing is in faults."""

import socket
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from derma_serving import liveness
from derma_serving.liveness import Health, LivenessProbe, Target, probe

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
        assert probe("127.0.0.1", port, "/", SHORT) is Health.HANGING
        assert SHORT <= time.monotonic() - begun < SHORT + 5


@pytest.mark.parametrize(
    ("answer", "health"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Health.ALIVE),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Health.ALIVE),
        (b"", Health.UNREACHABLE),
        (b"no HTTP\r\n", Health.UNREACHABLE),
    ],
)
def test_any_answer_and_any_end_is_none(answer, health):
    with listening(answer) as port:
        assert probe("127.0.0.1", port, "/", SHORT) is health


def test_nobody_there_is_none():
    with listening() as port:
        pass
    assert probe("127.0.0.1", port, "/", SHORT) is Health.UNREACHABLE


@pytest.fixture
def probed(monkeypatch):
    """Probes a process whose health is what the test says; returns whether it was killed in time."""
    monkeypatch.setattr(liveness, "INTERVAL", 0.01)

    def run(healths, seconds, stops=False):
        stopping, killed, answers = threading.Event(), threading.Event(), iter(healths)

        def ask(host, port, path):
            if stops:
                stopping.set()
            return next(answers, healths[-1])

        monkeypatch.setattr(liveness, "probe", ask)
        process = SimpleNamespace(kill=killed.set)
        thread = LivenessProbe(Target("a part", lambda: process, "127.0.0.1", 1, "/"), stopping)
        thread.start()
        try:
            return killed.wait(seconds)
        finally:
            stopping.set()
            thread.join(10)
            assert not thread.is_alive()

    return run


def test_what_hangs_after_it_answered_is_ended(probed):
    assert probed([Health.ALIVE, Health.HANGING], 10)


def test_what_has_not_answered_yet_still_loads(probed):
    assert not probed([Health.UNREACHABLE, Health.HANGING], 0.2)


def test_a_service_that_ends_has_a_deadline_of_its_own(probed):
    assert not probed([Health.ALIVE, Health.HANGING], 0.2, stops=True)
