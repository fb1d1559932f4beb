"""Load over fakes: what is sent when, and what is counted."""

import asyncio
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from derma_bench.load.generator import Generator
from derma_bench.load.journal import latency
from derma_bench.load.loops import closed_loop, open_loop, poisson
from derma_bench.load.senders import http
from derma_bench.payloads import payloads

IMAGES = [b"a", b"b", b"c"]


class FakeSender:
    """Answers ``places`` images at a time, each after ``seconds``; ``b"bad"`` fails."""

    def __init__(self, seconds=0.005, places=1000):
        self.seconds = seconds
        self.places = asyncio.Semaphore(places)
        self.sent = []
        self.under_way = 0
        self.most = 0

    async def send(self, image):
        self.sent.append(image)
        if image == b"bad":
            raise OSError("refused")
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            async with self.places:
                await asyncio.sleep(self.seconds)
        finally:
            self.under_way -= 1


def test_percentiles_are_numpys_in_milliseconds():
    found = latency([i / 1000 for i in range(1, 101)])
    assert found["p50"] == pytest.approx(50.5)
    assert found["p99"] == pytest.approx(99.01)
    assert (found["mean"], found["max"]) == (pytest.approx(50.5), pytest.approx(100))
    assert latency([]) == {}


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process():
    moments = poisson(50, 400, seed=1)
    gaps = np.diff(moments)
    assert len(moments) == pytest.approx(20_000, rel=0.03)
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.05)  # of an exponential: as large as its mean
    counts = np.bincount(moments.astype(int), minlength=400)
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.2)
    assert moments[0] > 0
    assert moments[-1] < 400
    assert np.array_equal(moments, poisson(50, 400, seed=1))
    assert not np.array_equal(moments[:10], poisson(50, 400, seed=2)[:10])


def test_no_rate_is_no_process():
    with pytest.raises(ValueError, match="must be positive"):
        poisson(0, 1, seed=0)


async def test_closed_loop_keeps_its_workers_busy_and_awaits_what_it_sent():
    sender = FakeSender(0.02)
    journal = await closed_loop(sender, IMAGES, workers=4, seconds=0.5, warm_up=0.1)
    found = journal.load("closed", 4)
    assert sender.most == 4
    assert sender.under_way == 0
    assert set(sender.sent) == set(IMAGES)
    assert 20 < found.throughput < 1.1 * 4 / 0.02
    assert found.completed == found.sent < len(sender.sent)  # warm-up does not count
    assert found.failures == {}
    assert found.latency_ms["p50"] >= 20


async def test_closed_loop_counts_failures_by_kind_and_backs_off():
    sender = FakeSender()
    found = (await closed_loop(sender, [b"bad"], workers=2, seconds=0.3, warm_up=0)).load("closed", 2)
    assert set(found.failures) == {"OSError"}
    assert found.completed == 0
    assert len(sender.sent) < 30


async def test_open_loop_measures_from_when_a_request_was_due():
    """One place of 0.05 s at 40 arrivals a second: the queue grows, and latency must say so."""
    journal = await open_loop(FakeSender(0.05, places=1), IMAGES, rate=40, seconds=1.0, warm_up=0)
    found = journal.load("open", 1)
    assert found.latency_ms["max"] > 500
    assert found.completed == found.sent == pytest.approx(40, abs=20)
    assert found.throughput <= 22


async def test_open_loop_bounds_what_is_under_way():
    sender = FakeSender(0.5)
    journal = await open_loop(sender, IMAGES, rate=200, seconds=0.3, warm_up=0, outstanding=5)
    found = journal.load("open", 1)
    assert sender.most == 5
    assert found.failures["overflow"] == found.sent - found.completed > 10


async def test_open_loop_gives_up_on_answers_that_never_come():
    journal = await open_loop(FakeSender(60), IMAGES, rate=20, seconds=0.3, warm_up=0, patience=0.1)
    found = journal.load("open", 1)
    assert found.completed == 0
    assert found.failures["unfinished"] == found.sent > 0


class SlowPost(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.02)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    """An HTTP service, because other processes cannot see a fake in this one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowPost)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_several_processes_send_as_one(web):
    with Generator(IMAGES, processes=2) as generator:
        found = generator.closed(partial(http, web), workers=5, seconds=1.0, warm_up=0.2)
        arrivals = generator.open(partial(http, web), rate=40, seconds=1.0, warm_up=0.2)
    assert (found.offered, found.failures) == (5, {})
    assert 5 < found.throughput < 1.1 * 5 / 0.02
    assert found.completed == pytest.approx(found.throughput, abs=5)
    assert arrivals.sent == pytest.approx(40, abs=32)
    assert arrivals.failures == {}


def test_payloads_are_jpeg(tmp_path, jpeg):
    (drawn,) = payloads(None, count=1)
    assert drawn[:2] == b"\xff\xd8"
    with pytest.raises(ValueError, match="holds no"):
        payloads(tmp_path)
    (tmp_path / "a.JPG").write_bytes(jpeg(0))
    (tmp_path / "notes.txt").write_text("no picture")
    assert payloads(tmp_path) == [jpeg(0)]
