"""Memory is flat."""

from __future__ import annotations

import io
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import theilslopes
from tritonclient.grpc import InferenceServerClient, InferInput

from derma_semantics import DermaClient
from derma_semantics.domain.contract import MAX_BATCH
from derma_semantics.imaging.synthetic import draw
from tests.faults.vitals import pending, vitals

ROUND = 3.0  # seconds of questions between two readings
BOUND = 500  # bytes an image: 100 MiB for 200,000 images
JUMP = 48.0  # MiB; the decoders' memory goes up and down by ten
LARGEST = 4  # requests of the largest size, for a start
SHARED = "/dev/shm"


@pytest.fixture(scope="module")
def photographs():
    """From 64 pixels to 7 megapixels, in every format."""
    sizes = ((64, 64), (225, 300), (640, 480), (1024, 768), (1600, 1200), (3072, 2304))
    files = []
    for number, size in enumerate(sizes):
        for kind in ("JPEG", "PNG" if max(size) < 2000 else "WEBP"):
            buffer = io.BytesIO()
            draw(number, (320, 240)).image.resize(size).save(buffer, kind)
            files.append(buffer.getvalue())
    return files


def warm_up(photographs):
    """The largest request there can be, which decides what Triton keeps; then every number of images.

    The network's engine keeps memory for each number that it has met.
    """
    largest = [[max(photographs, key=len)] * MAX_BATCH] * LARGEST
    return [*largest, *([photographs[0]] * number for number in range(1, MAX_BATCH + 1))]


def choices(photographs, seed):
    """What warms up, then any number of any photographs."""
    yield from warm_up(photographs)
    rng = random.Random(seed)
    while True:
        yield rng.choices(photographs, k=rng.randint(1, MAX_BATCH))


def one_by_one(service, chosen):
    """Asks, and says each time how many images that were."""
    with DermaClient(service.url, timeout=120) as client:
        for images in chosen:
            yield len(client.classify(images))


def in_batches(service, chosen):
    with InferenceServerClient(service.url) as raw:
        for images in chosen:
            tensor = InferInput("IMAGE", [len(images), 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[image] for image in images], dtype=np.object_))
            yield len(raw.infer("derma_classifier", [tensor]).as_numpy("RISK"))


def a_round(ask):
    """Images answered."""
    end, images = time.monotonic() + ROUND, 0
    while time.monotonic() < end:
        images += next(ask)
    return images


def resting(service, until):
    """MiB by process while nothing is under way: what requests of the moment take does not count.

    And what the models' processes share with Triton in /dev/shm, which grows to the largest requests
    that ever met there, in steps, and never shrinks.
    """
    until(lambda: pending(service) == 0, 30, "the queues are empty")
    readings = []
    for _ in range(5):
        time.sleep(0.1)
        readings.append(vitals(service))
    found = {name: min(one[name].private for one in readings) for name in readings[0]}
    blocks = [(Path("/dev/shm") / name).stat().st_blocks for name in service.segments()]
    return {**found, SHARED: sum(blocks) * 512 / 2**20}


def slope(images, memory):
    """Bytes an image by Theil and Sen, with the 95 % interval."""
    value, _, low, high = theilslopes(np.array(memory) * 2**20, images)
    return {"slope": round(float(value)), "low": round(float(low)), "high": round(float(high))}


def test_soak(service, photographs, until, amount, note):
    """Batches of 1 to 32, pictures of all sizes; what warms up goes before, and half of the time too."""
    seconds = amount(30, 120)
    asks = [one_by_one(service, choices(photographs, 0)), in_batches(service, choices(photographs, 1))]
    with ThreadPoolExecutor(len(asks)) as threads:
        warm = sum(threads.map(lambda ask: sum(next(ask) for _ in warm_up(photographs)), asks))
        images, counts, readings = 0, [], []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            images += sum(threads.map(a_round, asks))
            counts.append(images)
            readings.append(resting(service, until))
    for ask in asks:
        ask.close()
    half = len(counts) // 2
    counts, readings = counts[half:], readings[half:]
    measured = images - counts[0]
    kept = {name: [one[name] for one in readings] for name in readings[0]}
    growth = {name: round(values[-1] - values[0], 1) for name, values in kept.items()}
    by_image = {name: slope(counts, values) for name, values in kept.items() if name != SHARED}
    note(
        "memory",
        seconds=seconds,
        warm_up_images=warm + counts[0],
        images=measured,
        most_MiB={name: round(max(values)) for name, values in kept.items()},
        growth_MiB=growth,
        bytes_an_image=by_image,
    )
    assert max(growth.values()) < JUMP
    if amount(False, True):
        assert all(one["low"] <= 0 or one["high"] < BOUND for one in by_image.values()), by_image
        # Zero is in every interval that is wide enough.
        assert all(one["high"] * measured < JUMP * 2**20 for one in by_image.values()), by_image
