"""classify_many: bounded, in order, flat in memory, and gone when it is closed."""

import asyncio
import threading
import tracemalloc
from contextlib import aclosing

import numpy as np
import pytest

from derma_semantics import AsyncDermaClient, DermaClient, Diagnosis
from derma_semantics.domain.errors import CorruptImage
from derma_semantics.wire.cancellation import under_way
from derma_semantics.wire.flow import in_order

SIZE = 1000
ANSWER = {
    "PROBABILITIES": np.full(7, 1 / 7, np.float32),
    "RISK": np.array([0.5], np.float32),
    "TRIAGE": np.array([1], np.int32),
    "PREDICTION_SET": np.ones(7, bool),
    "EMBEDDING": np.ones(512, np.float32),
    "BUNDLE": np.zeros(32, np.uint8),
}


class Echo:
    """Answers with the image's number as risk; ``bad`` numbers are refused."""

    def __init__(self, bad=()):
        self.bad = bad

    def infer(self, image, timeout, request_id):
        number = int(image[:10])
        if number in self.bad:
            raise CorruptImage(f"{number} is damaged")
        return {**ANSWER, "RISK": np.array([number], np.float32), "EMBEDDING": ANSWER["EMBEDDING"].copy()}

    def network(self, timeout):
        return {"bundle_name": "mini", "bundle_digest": "00" * 32, "precision": "fp32", "version": "1"}

    def close(self):
        pass


class AsyncEcho(Echo):
    async def infer(self, image, timeout, request_id):
        await asyncio.sleep(0)
        return super().infer(image, timeout, request_id)

    async def network(self, timeout):
        return super().network(timeout)


class Waiting(Echo):
    """Requests wait until they are cancelled."""

    def __init__(self):
        super().__init__()
        self.waiting, self.cancelled = 0, 0
        self.lock = threading.Lock()

    def infer(self, image, timeout, request_id):
        ended = threading.Event()
        with under_way(ended.set):
            with self.lock:
                self.waiting += 1
            assert ended.wait(30)
            with self.lock:
                self.cancelled += 1
            raise RuntimeError("cancelled")


class AsyncWaiting(AsyncEcho):
    def __init__(self):
        super().__init__()
        self.waiting, self.cancelled = 0, 0

    async def infer(self, image, timeout, request_id):
        self.waiting += 1
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


class Source:
    """Images by number; knows how many were pulled."""

    def __init__(self, count):
        self.count, self.pulled = count, 0

    def __iter__(self):
        for number in range(self.count):
            self.pulled += 1
            yield (b"%010d" % number).ljust(SIZE, b" ")


@pytest.mark.parametrize("in_flight", [1, 7, 16])
def test_in_order_and_never_more_than_in_flight_ahead(in_flight):
    source, taken = Source(300), 0
    for image, answer in DermaClient(transport=Echo()).classify_many(source, in_flight=in_flight):
        assert answer.risk == int(image[:10]) == taken
        taken += 1
        assert source.pulled - taken < in_flight
    assert taken == source.pulled == 300


async def test_async_in_order_and_never_more_than_in_flight_ahead():
    source, taken = Source(300), 0
    async for image, answer in AsyncDermaClient(transport=AsyncEcho()).classify_many(source, in_flight=7):
        assert answer.risk == int(image[:10]) == taken
        taken += 1
        assert source.pulled - taken <= 7
        if taken % 50 == 0:
            await asyncio.sleep(0.01)  # a consumer that is behind holds the source back
            assert source.pulled - taken <= 7
    assert taken == source.pulled == 300


def growth(run):
    """Bytes allocated at most, beyond those before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_images():
    """Three megabytes of images and six of embeddings pass through a few hundred kilobytes."""

    def run():
        client = DermaClient(transport=Echo())
        assert sum(1 for _ in client.classify_many(Source(3_000))) == 3_000

    assert growth(run) < 1_000_000


def test_memory_does_not_grow_with_the_number_of_images_in_asyncio():
    async def classify():
        client, count = AsyncDermaClient(transport=AsyncEcho()), 0
        async for _ in client.classify_many(Source(2_000)):
            count += 1
        assert count == 2_000

    assert growth(lambda: asyncio.run(classify())) < 1_000_000


def test_a_hundred_thousand_items_are_held_a_few_at_a_time():
    held = most = 0

    class Item:
        def __init__(self):
            nonlocal held, most
            held += 1
            most = max(most, held)

        def __del__(self):
            nonlocal held
            held -= 1

    count = sum(1 for _ in in_order(id, (Item() for _ in range(100_000)), 16))
    assert count == 100_000
    assert most < 64  # 16 in flight, and as many that their threads are about to drop


def test_kept_errors_do_not_keep_their_images():
    def run():
        client = DermaClient(transport=Echo(bad=range(1000)))
        images = (b"%010d" % n + bytes(100_000) for n in range(1000))
        kept = [answer for _, answer in client.classify_many(images)]
        assert {type(error) for error in kept} == {CorruptImage}

    assert growth(run) < 20_000_000  # the images are 100 MB


def test_errors_of_single_images_stand_in_their_place(tmp_path):
    client = DermaClient(transport=Echo(bad=[0]))
    images = [b"0", b"1", tmp_path / "none.jpg", b"", 3, b"2"]
    given, answers = zip(*client.classify_many(images), strict=True)
    assert list(given) == images
    kinds = ["CorruptImage", "Diagnosis", "FileNotFoundError", "EmptyImage", "TypeError", "Diagnosis"]
    assert [type(answer).__name__ for answer in answers] == kinds


def broken_source():
    yield b"0"
    raise ConnectionError("the camera is gone")


def test_errors_of_the_source_end_the_iteration():
    with pytest.raises(ConnectionError, match="camera"):
        list(DermaClient(transport=Echo()).classify_many(broken_source()))


async def test_errors_of_the_source_end_the_iteration_in_asyncio():
    async def source():
        for image in broken_source():
            yield image

    with pytest.raises(ConnectionError, match="camera"):
        async for _ in AsyncDermaClient(transport=AsyncEcho()).classify_many(source()):
            pass


@pytest.mark.parametrize("client", [DermaClient(transport=Echo()), AsyncDermaClient(transport=AsyncEcho())])
def test_in_flight_must_be_a_number_of_images(client):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        client.classify_many([], in_flight=0)


def test_an_interrupt_cancels_what_is_under_way(until):
    """None of the two requests is left when the interrupt reaches the caller."""
    transport = Waiting()

    def source():
        yield from [b"0", b"1"]
        until(lambda: transport.waiting == 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(DermaClient(transport=transport).classify_many(source()))
    assert transport.cancelled == 2


def test_closing_cancels_what_is_under_way(until):
    class FirstAnswers(Waiting):
        """The first, once the others wait."""

        def infer(self, image, timeout, request_id):
            if image != b"0":
                return super().infer(image, timeout, request_id)
            until(lambda: self.waiting == 2)
            return Echo.infer(self, image, timeout, request_id)

    transport = FirstAnswers()
    answers = DermaClient(transport=transport).classify_many([b"0", b"1", b"2", b"3"], in_flight=3)
    assert next(answers)[0] == b"0"
    answers.close()
    assert transport.cancelled == transport.waiting == 2


async def test_closing_cancels_what_is_under_way_in_asyncio():
    transport = AsyncWaiting()
    client = AsyncDermaClient(transport=transport)

    async def consume():
        async with aclosing(client.classify_many(Source(100), in_flight=3)) as answers:
            await anext(answers)

    task = asyncio.create_task(consume())
    while transport.waiting < 3:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert transport.cancelled == transport.waiting == 3


def test_leaving_a_loop_early_ends_its_threads(until):
    before = threading.active_count()
    for _image, answer in DermaClient(transport=Echo()).classify_many(Source(1000)):
        assert isinstance(answer, Diagnosis)
        break
    until(lambda: threading.active_count() <= before)


async def test_answers_come_though_the_source_waits():
    """As of a camera: the next image comes only after the answer to the last."""
    queue = asyncio.Queue()
    queue.put_nowait(b"0")

    async def source():
        while (image := await queue.get()) is not None:
            yield image

    answered = []
    async for image, _ in AsyncDermaClient(transport=AsyncEcho()).classify_many(source()):
        answered.append(image)
        queue.put_nowait(b"1" if len(answered) == 1 else None)
    assert answered == [b"0", b"1"]


def test_threads_share_a_client():
    client, wrong = DermaClient(transport=Echo()), []

    def run(first):
        images = [b"%d" % (first + n) for n in range(50)]
        wrong.extend(image for image, answer in client.classify_many(images) if answer.risk != int(image))

    threads = [threading.Thread(target=run, args=(1000 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
