"""What is tried again, for how long, and what is not; through real gRPC."""

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from derma_semantics import AsyncDermaClient, DermaClient
from derma_semantics.domain.errors import (
    AccessDenied,
    CorruptImage,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    ServiceError,
    ServiceUnavailable,
)
from derma_semantics.wire.retry import policy

CODE = grpc.StatusCode
FULL = (CODE.UNAVAILABLE, "in ensemble 'derma_classifier', Exceeds maximum queue size")
RELOADING = (CODE.NOT_FOUND, "Request for unknown model: 'derma_classifier' is not found")
DEAD = (CODE.INTERNAL, "Stub process 'derma_preprocess_0_1' is not healthy.")


@pytest.mark.parametrize("refusals", [[FULL], [RELOADING, RELOADING], [DEAD, FULL]])
def test_passing_failures_are_survived(kserve, refusals):
    service, port, _ = kserve()
    service.refusals = list(refusals)
    with DermaClient(f"127.0.0.1:{port}") as client:
        assert client.classify(b"x").top.condition.code == "BCC"
    assert service.begun == len(refusals) + 1


async def test_passing_failures_are_survived_in_asyncio(kserve):
    service, port, _ = kserve()
    service.refusals = [DEAD, FULL]
    async with AsyncDermaClient(f"127.0.0.1:{port}") as client:
        assert (await client.classify(b"x")).top.condition.code == "BCC"
    assert service.begun == 3


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        ((CODE.INVALID_ARGUMENT, "CorruptImage: the JPEG is truncated"), CorruptImage),
        ((CODE.INVALID_ARGUMENT, "unexpected inference input 'FOO'"), InvalidRequest),
        ((CODE.UNAUTHENTICATED, "no token"), AccessDenied),
        ((CODE.PERMISSION_DENIED, "not yours"), AccessDenied),
        ((CODE.DEADLINE_EXCEEDED, ""), DeadlineExceeded),
        ((CODE.INTERNAL, "something else"), ServiceError),
    ],
)
def test_lasting_failures_are_not_tried_again(kserve, refusal, error):
    service, port, _ = kserve()
    service.refusals = [refusal] * 2
    with DermaClient(f"127.0.0.1:{port}") as client, pytest.raises(error):
        client.classify(b"x")
    assert service.begun == 1


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [({"retry_for": 0.6}, 0.6), ({"timeout": 0.6}, 0.6), ({"retry_for": 0}, 0)],
)
def test_the_last_failure_is_raised_when_the_time_is_over(kserve, limits, seconds):
    service, port, _ = kserve()
    service.refusals = [FULL] * 100
    begun = time.monotonic()
    with DermaClient(f"127.0.0.1:{port}", **limits) as client, pytest.raises(Overloaded, match="queue size"):
        client.classify(b"x")
    assert time.monotonic() - begun < seconds + 0.5
    assert (service.begun > 1) == (seconds > 0)


async def test_the_last_failure_is_raised_when_the_time_is_over_in_asyncio(kserve):
    service, port, _ = kserve()
    service.refusals = [FULL] * 100
    client = AsyncDermaClient(f"127.0.0.1:{port}", retry_for=0.4)
    with pytest.raises(Overloaded):
        await client.classify(b"x")
    assert service.begun > 1
    await client.close()


def test_a_server_that_restarts_is_survived(kserve, until):
    service, port, stop = kserve()
    with DermaClient(f"127.0.0.1:{port}", retry_for=20) as client, ThreadPoolExecutor(1) as pool:
        client.classify(b"x")
        stop()
        answer = pool.submit(client.classify, b"x")
        time.sleep(1)  # what a restart takes
        assert not answer.done()
        again, _, _ = kserve(port=port)
        assert answer.result(20).risk > 0
    assert (service.asked, again.asked) == (1, 1)


def test_readiness_is_asked_once(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        client = DermaClient(f"127.0.0.1:{closed.getsockname()[1]}")
        begun = time.monotonic()
        assert not client.ready()
        with pytest.raises(ServiceUnavailable):
            client.bundle()
        assert time.monotonic() - begun < 2


def test_waits_grow_and_differ():
    wait, state = policy(10)["wait"], type("State", (), {})()
    longest = []
    for attempt in (1, 2, 3, 4, 8):
        state.attempt_number = attempt
        waits = [wait(state) for _ in range(300)]
        assert min(waits) >= 0.05
        assert len(set(waits)) > 200
        longest.append(max(waits))
    assert longest == sorted(longest)
    assert longest[0] < 0.25
    assert 1.8 < longest[-1] <= 2.1


def test_closing_ends_a_wait_between_attempts(kserve, until):
    """A generator that is closed does not go on trying for the 30 s that it may."""
    service, port, _ = kserve()
    client = DermaClient(f"127.0.0.1:{port}", retry_for=30)
    service.refusals = [FULL] * 1000

    def source():
        yield b"x"
        until(lambda: service.begun >= 5)
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(client.classify_many(source()))
    assert time.monotonic() - started < 20
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("derma_")]
    client.close()


async def test_cancelling_ends_a_wait_between_attempts(kserve):
    service, port, _ = kserve()
    service.refusals = [FULL] * 1000
    async with AsyncDermaClient(f"127.0.0.1:{port}", retry_for=30) as client:
        task = asyncio.create_task(client.classify(b"x"))
        while service.begun < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        begun = service.begun
        await asyncio.sleep(0.5)
        assert service.begun <= begun + 1
