"""The client against a real server: many images, retries, forks, cancelled requests."""

import asyncio
import signal
import subprocess
import sys
import time

import pytest

from derma_semantics import AsyncDermaClient, DermaClient
from derma_semantics.domain.errors import CorruptImage


def test_many_images_come_back_in_order(client, jpeg):
    kinds = [jpeg(0), jpeg(1), jpeg(2)[:3000]]
    expected = client.classify(kinds, return_exceptions=True)
    images = [kinds[n % 3] for n in range(120)]
    given, answers = zip(*client.classify_many(iter(images)), strict=True)
    assert list(given) == images
    for number, answer in enumerate(answers):
        if number % 3 == 2:
            assert isinstance(answer, CorruptImage)
        else:
            assert answer.risk == pytest.approx(expected[number % 3].risk, abs=1e-5)


async def test_many_images_come_back_in_order_in_asyncio(service, client, jpeg):
    async with AsyncDermaClient(service.url) as own:
        answers = [answer.risk async for _, answer in own.classify_many([jpeg(0), jpeg(1)] * 20)]
    expected = [answer.risk for answer in client.classify([jpeg(0), jpeg(1)])] * 20
    assert answers == pytest.approx(expected, abs=1e-5)


async def test_cancelled_requests_leave_the_queue(service, client, jpeg):
    """Two hundred requests that nobody waits for take no time from the next."""
    alone = time.monotonic()
    client.classify(jpeg(0))
    alone = time.monotonic() - alone
    async with AsyncDermaClient(service.url, timeout=60, retry_for=60) as own:
        tasks = [asyncio.create_task(own.classify(jpeg(0))) for _ in range(200)]
        whole = time.monotonic()
        await asyncio.gather(*tasks)
        whole = time.monotonic() - whole
        tasks = [asyncio.create_task(own.classify(jpeg(0))) for _ in range(200)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        next_one = time.monotonic()
        await own.classify(jpeg(0))
        next_one = time.monotonic() - next_one
    print(f"alone {alone:.3f} s, after 200 {whole:.3f} s, after 200 cancelled ones {next_one:.3f} s")
    assert next_one < whole / 2


FORKED = """
import multiprocessing, sys
from derma_semantics import DermaClient

client = DermaClient(sys.argv[1])
image = open(sys.argv[2], "rb").read()

def ask(_):
    return round(client.classify(image).risk, 4)

if __name__ == "__main__":
    mine = ask(0)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        print(set(pool.map(ask, range(12))) == {mine})
"""


def test_a_pool_of_forked_processes_shares_a_client(service, jpeg, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    command = [sys.executable, "-c", FORKED, service.url, str(tmp_path / "a.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


def test_two_servers_take_turns(service, another_service, jpeg):
    """One of them ends; the answers go on."""
    with DermaClient([service.url, another_service.url]) as both:
        risks = [answer.risk for answer in both.classify([jpeg(0)] * 40)]
        another_service.launcher.send_signal(signal.SIGTERM)
        risks += [answer.risk for answer in both.classify([jpeg(0)] * 200)]
    assert risks == pytest.approx([risks[0]] * 240, abs=1e-5)
    another_service.launcher.communicate(timeout=60)
