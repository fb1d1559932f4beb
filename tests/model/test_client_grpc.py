"""The connection, against services in this process: cancelling, several addresses, forks."""

import asyncio
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tritonclient.grpc.model_config_pb2 import ModelEnsembling

from derma_semantics import AsyncDermaClient, DermaClient
from derma_semantics.domain.errors import DeadlineExceeded, ServiceUnavailable
from derma_semantics.wire.connection import Connection
from derma_semantics.wire.transport import ModelControl, _request


def test_an_answer_and_what_is_served(kserve):
    service, port, _ = kserve()
    with DermaClient(f"127.0.0.1:{port}") as client:
        diagnosis = client.classify(b"\xff image \x00")
        assert client.ready()
        assert diagnosis.bundle == client.bundle()
    assert service.images == [b"\xff image \x00"]
    assert (diagnosis.top.condition.code, diagnosis.embedding.shape) == ("BCC", (4,))
    assert (diagnosis.bundle.name, diagnosis.bundle.version) == ("mini", "10")
    with pytest.raises(RuntimeError, match="closed"):
        client.classify(b"x")


def test_what_was_noticed_and_an_older_server(kserve):
    service, port, _ = kserve()
    with DermaClient(f"127.0.0.1:{port}") as client:
        assert client.classify(b"x").to_dict()["quality"] == ["blur", "out_of_distribution"]
        del service.answers["QUALITY"]
        assert client.classify(b"x").quality == ()


@pytest.mark.parametrize("audited", [False, True])
def test_operators_learn_of_the_steps_and_the_log_at_once(kserve, audited):
    """Also of a step without an input map."""
    service, port, _ = kserve()
    maps = {"TICKET": "ticket"} if audited else {}
    service.steps = [
        ModelEnsembling.Step(model_name="derma_preprocess"),
        ModelEnsembling.Step(model_name="derma_biomedclip", input_map=maps),
    ]
    control = ModelControl(f"127.0.0.1:{port}")
    try:
        assert control.steps() == (["derma_preprocess", "derma_biomedclip"], audited)
        assert service.configs == 1
        assert control.audited() is audited
    finally:
        control.close()


def test_closing_the_iterator_cancels_the_calls(kserve, until):
    service, port, _ = kserve()
    service.gate.clear()
    with DermaClient(f"127.0.0.1:{port}") as client:

        def source():
            yield from [b"x"] * 5
            until(lambda: service.begun == 5)
            raise KeyboardInterrupt

        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(client.classify_many(source()))
        assert time.monotonic() - begun < 8  # the time of an image is 30 s
        until(lambda: service.gone == 5)


def test_an_interrupt_cancels_a_single_call(kserve, until):
    """Ctrl-C while the answer is awaited, in a program of its own."""
    service, port, _ = kserve()
    service.gate.clear()
    code = f"from derma_semantics import DermaClient; DermaClient('127.0.0.1:{port}').classify(b'x')"
    program = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    until(lambda: service.begun == 1, 30)
    program.send_signal(signal.SIGINT)
    _, shown = program.communicate(timeout=10)
    assert "KeyboardInterrupt" in shown.splitlines()[-1]
    until(lambda: service.gone == 1)


async def test_cancelling_a_task_cancels_its_call(kserve):
    service, port, _ = kserve()
    service.gate.clear()
    async with AsyncDermaClient(f"127.0.0.1:{port}") as client:
        tasks = [asyncio.create_task(client.classify(b"x")) for _ in range(3)]
        while service.begun < 3:
            await asyncio.sleep(0.01)
        for task in tasks[:2]:
            task.cancel()
        while service.gone < 2:
            await asyncio.sleep(0.01)
        service.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer).__name__ for answer in answers] == ["CancelledError", "CancelledError", "Diagnosis"]


def test_no_answer_in_time(kserve):
    service, port, _ = kserve()
    service.gate.clear()
    with DermaClient(f"127.0.0.1:{port}") as client, pytest.raises(DeadlineExceeded, match=str(port)):
        client.classify(b"x", timeout=0.3)
    assert service.begun == 1


@pytest.mark.parametrize(
    ("seconds", "least", "most"), [(5, 4e6, 5e6), (1e-9, 1, 1), (float("inf"), 8e10, 9e10)]
)
def test_the_server_is_told_how_long_its_answer_is_waited_for(seconds, least, most):
    """In microseconds: Triton's queues then let go of what nobody waits for."""
    told = _request(b"x", "", seconds).parameters["timeout"].int64_param
    assert least <= told <= most


def test_a_later_attempt_tells_what_is_left(kserve):
    service, port, _ = kserve()
    service.refusals = [(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")]
    with DermaClient(f"127.0.0.1:{port}") as client:
        client.classify(b"x", timeout=5)
    first, second = service.timeouts
    assert 4e6 < first <= 5e6
    assert 4e6 < second < first - 5e4  # the shortest pause between attempts


def test_addresses_take_turns_and_the_dead_are_passed_over(kserve):
    """Every request is answered while one of two servers goes away and comes back."""
    (first, one, stop), (second, other, _) = kserve(), kserve()
    with DermaClient([f"127.0.0.1:{one}", f"127.0.0.1:{other}"]) as client:
        client.classify([b"x"] * 100)
        assert first.asked + second.asked == 100
        assert min(first.asked, second.asked) > 20
        with ThreadPoolExecutor(1) as pool:
            answers = pool.submit(client.classify, [b"x"] * 300)
            stop()
            assert len(answers.result(30)) == 300
        again, _, _ = kserve(port=one)
        end = time.monotonic() + 15
        while not again.asked and time.monotonic() < end:
            client.classify(b"x")
        assert again.asked > 0


def test_addresses_in_one_text(kserve):
    (first, one, _), (second, other, _) = kserve(), kserve()
    with DermaClient(f"localhost:{one}, 127.0.0.1:{other}") as client:
        client.classify([b"x"] * 200)
    assert min(first.asked, second.asked) > 0


async def test_addresses_take_turns_in_asyncio(kserve):
    (first, one, _), (second, other, _) = kserve(), kserve()
    async with AsyncDermaClient([f"127.0.0.1:{one}", f"127.0.0.1:{other}"]) as client:
        await client.classify([b"x"] * 200)
    assert first.asked + second.asked == 200
    assert min(first.asked, second.asked) > 20  # the first ones go to whom is connected first


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("127.0.0.1:8001", "ipv4:127.0.0.1:8001"),
        ("[::1]:8001", "ipv6:[::1]:8001"),
        ("triton.clinic:8001", "dns:///triton.clinic:8001"),
        ("10.0.0.1:1,10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2"),
        (["10.0.0.1:1", "10.0.0.2:2"], "ipv4:10.0.0.1:1,10.0.0.2:2"),
        ("[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2"),
        ("10.0.0.1:1,10.0.0.1:1", "ipv4:10.0.0.1:1"),
    ],
)
def test_addresses_as_grpc_writes_them(url, target):
    assert Connection(url).target() == target


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "127.0.0.1", "host:port", "host:0", "host:99999", "a/b:1"]
)
def test_what_is_no_address_is_named(url):
    with pytest.raises(ValueError, match=r"expected host:port.*got") as caught:
        DermaClient(url)
    assert url in str(caught.value)


@pytest.mark.parametrize("url", ["", " , ", []])
def test_an_address_is_needed(url):
    with pytest.raises(ValueError, match="no address"):
        DermaClient(url)


def test_a_name_of_several_that_is_unknown():
    client = DermaClient("no.such.host.invalid:1,127.0.0.1:1", retry_for=0)
    with pytest.raises(ServiceUnavailable, match=r"no\.such\.host\.invalid"):
        client.classify(b"x")


FORKED = """
import os, sys, threading
from derma_semantics import DermaClient

client = DermaClient("127.0.0.1:{port}", timeout=10)
if {used}:
    client.classify([b"x"] * 20)
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        codes = [answer.top.condition.code for answer in client.classify([b"x"] * 20)]
        client.close()
        os._exit(0 if codes == ["BCC"] * 20 else 1)
    children.append(child)
client.classify([b"x"] * 20)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
client.classify(b"x")
"""

ASYNC_FORKED = """
import asyncio, os, traceback
from derma_semantics import AsyncDermaClient

client = AsyncDermaClient("127.0.0.1:{port}", timeout=10)

async def ask():
    return [answer.top.condition.code for answer in await client.classify([b"x"] * 20)]

if {used}:
    asyncio.run(ask())
child = os.fork()
if child == 0:
    try:
        os._exit(0 if asyncio.run(ask()) == ["BCC"] * 20 else 1)
    except RuntimeError:
        traceback.print_exc()
        os._exit(2)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])])
asyncio.run(ask())
"""


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("used", [False, True])
def test_forked_processes_share_a_client(kserve, used):
    """Made before the fork, used before it or not: parent and children all get their answers."""
    service, port, _ = kserve()
    done = run(FORKED.format(port=port, used=used))
    assert (done.returncode, done.stdout.strip()) == (0, "[0, 0, 0]"), done.stderr
    assert service.asked == service.begun


def test_an_async_client_can_be_made_before_a_fork(kserve):
    _, port, _ = kserve()
    done = run(ASYNC_FORKED.format(port=port, used=False))
    assert (done.returncode, done.stdout.strip()) == (0, "[0]"), done.stderr


def test_an_async_client_that_was_used_before_a_fork_says_so(kserve):
    """The parent goes on."""
    _, port, _ = kserve()
    done = run(ASYNC_FORKED.format(port=port, used=True))
    assert (done.returncode, done.stdout.strip()) == (0, "[2]"), done.stderr
    assert "RuntimeError: an AsyncDermaClient that was used before" in done.stderr


def test_many_threads_use_one_connection(kserve):
    service, port, _ = kserve()
    with DermaClient(f"127.0.0.1:{port}") as client, ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(client.classify, [b"x"] * 240))
    assert {answer.top.condition.code for answer in answers} == {"BCC"}
    assert service.asked == 240
