"""Clients leave no garbage: not those that give up, and not those that crash."""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from statistics import median

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

from derma_semantics import AsyncDermaClient, DermaClient
from derma_semantics.domain.errors import DeadlineExceeded, DermaError
from derma_semantics.wire.transport import _request as message_of
from tests.faults.vitals import pending, vitals

SLACK = 8  # threads and descriptors that come and go with the requests of the moment


async def alone(client, image):
    begun = time.monotonic()
    await client.classify(image)
    return time.monotonic() - begun


async def given_up(client, image, cancelled, expiring):
    """What became of requests that are all given up within 0.2 seconds."""
    tasks = [asyncio.create_task(client.classify(image)) for _ in range(cancelled)]
    late = [asyncio.create_task(client.classify(image, timeout=0.2)) for _ in range(expiring)]
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    return {type(outcome) for outcome in await asyncio.gather(*tasks, *late, return_exceptions=True)}


@pytest.mark.parametrize(
    ("cancelled", "expiring", "longest"),
    # What the models have begun is finished first: a batch of each. And what is cancelled once it waits for
    # the network, without its time being out, is computed after all; see docs/reliability.md.
    [(32, 32, 1.0), (64, 0, 3.0)],
    ids=["half of them late", "all cancelled"],
)
async def test_given_up_requests_free_their_places(
    service, jpeg, amount, until, note, request, cancelled, expiring, longest
):
    rounds = amount(3, 15 if expiring else 8)
    async with AsyncDermaClient(service.url, timeout=60) as client:
        quiet = sorted([await alone(client, jpeg(0)) for _ in range(10)])[5]
        waited, kinds = [], set()
        for _ in range(rounds):
            kinds |= await given_up(client, jpeg(0), cancelled, expiring)
            waited.append(await alone(client, jpeg(0)))
    until(lambda: pending(service) == 0, 10, "the queues are empty")
    note(
        f"requests given up, {request.node.callspec.id}",
        requests=64 * rounds,
        alone_s=quiet,
        next_one_s={"median": median(waited), "longest": max(waited)},
        left_in_queues=0,
    )
    assert {asyncio.CancelledError, *([DeadlineExceeded] if expiring else [])} <= kinds
    assert max(waited) < longest + 20 * quiet


STREAMS, EACH = 50, 3


def cancelled_streams(service, image):
    """Fifty connections, each with three requests in a stream that its client then cancels."""

    def requests(over):
        yield from (message_of(image, f"streamed {number}", 60) for number in range(EACH))
        over.wait(60)

    over, channels, calls = threading.Event(), [], []
    for _ in range(STREAMS):
        channels.append(grpc.insecure_channel(service.url, [("grpc.use_local_subchannel_pool", 1)]))
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channels[-1])
        calls.append(stub.ModelStreamInfer(requests(over), timeout=60))
    next(calls[0])
    for call in calls:
        call.cancel()
    over.set()
    return channels


async def test_cancelled_streams_are_as_short_as_the_queues(service, jpeg, amount, until, note):
    """The network computes at most what its queue holds; the next request waits no longer than that."""
    async with AsyncDermaClient(service.url, timeout=60) as client:
        quiet = sorted([await alone(client, jpeg(0)) for _ in range(10)])[5]
        waited = []
        for _ in range(amount(2, 8)):
            channels = await asyncio.to_thread(cancelled_streams, service, jpeg(0))
            waited.append(await alone(client, jpeg(0)))
            for channel in channels:
                channel.close()
    until(lambda: pending(service) == 0, 10, "the queues are empty")
    note(
        "cancelled streams",
        requests_a_round=STREAMS * EACH,
        alone_s=quiet,
        next_one_s={"median": median(waited), "longest": max(waited)},
        left_in_queues=0,
    )
    assert max(waited) < 3 + 20 * quiet


def reset(connection):
    """As a process that was killed, or a cable that was cut: no farewell."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def half_http(service, image):
    """The head of an HTTP request and half of its body."""
    head = (
        "POST /v2/models/derma_classifier/infer HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(image)}\r\n"
        "Inference-Header-Content-Length: 0\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", service.ports["http"]), 10)
    connection.sendall(head.encode() + image[: len(image) // 2])
    reset(connection)


def whole_http(service, image):
    """A whole request whose answer nobody takes."""
    head = (
        "POST /v2/models/derma_classifier/infer HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(image)}\r\n"
        "Inference-Header-Content-Length: 0\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", service.ports["http"]), 10)
    connection.sendall(head.encode() + image)
    reset(connection)


def half_grpc(service, image):
    """HTTP/2's greeting and a frame that promises more than it holds."""
    connection = socket.create_connection(("127.0.0.1", service.ports["grpc"]), 10)
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
    connection.sendall(b"\x00\x40\x00\x01\x04" + struct.pack(">I", 1) + image[:100])
    reset(connection)


def closed_grpc(service, image):
    """A request under way when its channel goes."""
    channel = grpc.insecure_channel(service.url, [("grpc.use_local_subchannel_pool", 1)])
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    # It looks every 0.2 seconds. Faster than that, Triton stops answering: see docs/reliability.md.
    grpc.channel_ready_future(channel).result(10)
    calls = [stub.ModelInfer.future(message_of(image, "given up", 60), timeout=60) for _ in range(4)]
    channel.close()
    for call in calls:
        assert call.cancelled() or call.done()


PROCESS = """
import sys
from derma_semantics import DermaClient
image = open(sys.argv[2], "rb").read()
print("begun", flush=True)
with DermaClient(sys.argv[1], timeout=60) as client:
    for _ in client.classify_many(image for _ in iter(int, 1)):
        print("answered", flush=True)
"""


def killed_process(service, path):
    """A bulk client, killed when it has 16 requests under way."""
    command = [sys.executable, "-c", PROCESS, service.url, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert [process.stdout.readline().strip() for _ in range(2)] == ["begun", "answered"]
        process.send_signal(signal.SIGKILL)


def crash(service, image, count, path, processes):
    # One in eight closes a channel, as each of those waits 0.2 seconds first.
    kinds = (half_http, whole_http, half_grpc, half_http, whole_http, half_grpc, whole_http, closed_grpc)
    for number in range(count):
        kinds[number % len(kinds)](service, image)
    for _ in range(processes):
        killed_process(service, path)


@pytest.fixture
def resting(service, until):
    """Descriptors, threads and memory of every process once nothing is under way."""

    def read():
        until(lambda: pending(service) == 0, 30, "the queues are empty")
        readings = []
        for _ in range(8):
            time.sleep(0.25)
            readings.append(vitals(service))
        return {
            name: tuple(
                int(min(getattr(one[name], what) for one in readings)) for what in ("descriptors", "threads")
            )
            for name in readings[0]
        }

    return read


def test_crashing_clients(service, client, jpeg, amount, resting, tmp_path, note):
    """Killed processes, reset connections, half requests: descriptors and threads stay as they were."""
    count, processes = amount(30, 1000), amount(1, 20)
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    expected = client.classify(jpeg(0)).risk
    crash(service, jpeg(0), 20, tmp_path / "a.jpg", 1)  # warm-up: pools of threads grow to their size
    before = resting()
    crash(service, jpeg(0), count, tmp_path / "a.jpg", processes)
    after = resting()
    more = {name: np.subtract(after[name], before[name]).tolist() for name in before}
    note(
        "crashing clients",
        clients=count + processes,
        more_descriptors={name: one[0] for name, one in more.items()},
        more_threads={name: one[1] for name, one in more.items()},
        left_in_queues=0,
    )
    assert after.keys() == before.keys()
    assert max(max(one) for one in more.values()) <= SLACK
    assert client.classify(jpeg(0)).risk == pytest.approx(expected, abs=1e-5)


def test_connections_closed_within_a_moment(start_service, jpeg, amount, until, note):
    """Triton 2.51 hangs or ends of it (docs/reliability.md); the launcher makes it answer again."""
    if amount(True, False):
        pytest.skip("in the full form")
    service, image, recovered, replaced = start_service(), jpeg(0), [], 0
    with DermaClient(service.url, timeout=5, retry_for=0) as client:
        expected = client.classify(image).differential
    for _ in range(3):
        triton = triton_of(service)
        close_together(service, image, connections=32)
        closed = time.monotonic()
        until(lambda: answers(service, image) == expected, 60, "the service answers as before")
        recovered.append(time.monotonic() - closed)
        replaced += triton_of(service) != triton
    note("connections closed within a moment", rounds=3, recovered_s=recovered, triton_replaced=replaced)


def triton_of(service):
    return next((pid for pid, command in service.processes() if "bin/tritonserver " in command), None)


def close_together(service, image, connections):
    """Four requests under way on each, and no pause between one's end and the next one's."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.insecure_channel(service.url, options) for _ in range(connections)]
    for channel in channels:
        grpc.channel_ready_future(channel).result(10)
    for channel in channels:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(4):
            stub.ModelInfer.future(message_of(image, "given up", 60), timeout=60)
    for channel in channels:
        channel.close()


def answers(service, image):
    """What a new client is answered; None where it is not."""
    try:
        with DermaClient(service.url, timeout=2, retry_for=0) as client:
            return client.classify(image).differential
    except DermaError:
        return None
