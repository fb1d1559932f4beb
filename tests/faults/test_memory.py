"""Memory is flat."""

from __future__ import annotations

import io
import random
import time

import numpy as np
import pytest
from scipy.stats import theilslopes
from tritonclient.grpc import InferenceServerClient, InferInput

from derma_semantics import DermaClient
from derma_semantics.synthetic import draw
from tests.faults.traffic import asking
from tests.faults.vitals import recorded

WINDOW = 5.0  # seconds; memory goes up and down with the requests of the moment
BOUND = 60.0  # MiB an hour: 300 bytes a request, at 60 requests a second
JUMP = 48.0  # MiB, of the short form, which is too short for a slope


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


def one_by_one(service, photographs, rng):
    with DermaClient(service.url) as client:
        while True:
            yield client.classify(rng.choices(photographs, k=rng.randrange(1, 33)))


def in_batches(service, photographs, rng):
    with InferenceServerClient(service.url) as raw:
        while True:
            images = rng.choices(photographs, k=rng.randrange(1, 33))
            tensor = InferInput("IMAGE", [len(images), 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[image] for image in images], dtype=np.object_))
            yield raw.infer("derma_classifier", [tensor]).as_numpy("RISK")


def slopes(times, memory):
    """MiB an hour by Theil and Sen, with its 95 % interval, over the medians of windows."""
    numbers = (np.array(times) // WINDOW).astype(int)
    values = np.array(memory)
    kept = sorted(set(numbers.tolist()))
    medians = [float(np.median(values[numbers == number])) for number in kept]
    slope, _, low, high = theilslopes(medians, np.array(kept) * WINDOW / 3600)
    return {"slope": round(float(slope), 1), "low": round(float(low), 1), "high": round(float(high), 1)}


def test_soak(service, photographs, amount, note):
    """Batches of 1 to 32, pictures of all sizes; the first third of the time is warm-up."""
    seconds = amount(30, 360)
    asks = [
        one_by_one(service, photographs, random.Random(0)),
        in_batches(service, photographs, random.Random(1)),
    ]
    with recorded(service) as record, asking(*[ask.__next__ for ask in asks]) as journal:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.5)
    assert journal.failures == []
    start = next(number for number, moment in enumerate(record.times) if moment > seconds / 3)
    times = record.times[start:]
    kept = {name: values[start:] for name, values in record.memory.items()}
    half = len(times) // 2
    jumps = {
        name: round(float(np.median(values[half:]) - np.median(values[:half])), 1)
        for name, values in kept.items()
    }
    by_hour = {name: slopes(times, values) for name, values in kept.items()}
    note(
        "memory",
        seconds=seconds,
        requests=len(journal.requests),
        MiB={name: round(max(values)) for name, values in kept.items()},
        half_to_half_MiB=jumps,
        MiB_an_hour=by_hour,
    )
    assert max(jumps.values()) < JUMP
    if seconds > 300:
        assert max(one["low"] for one in by_hour.values()) < BOUND
