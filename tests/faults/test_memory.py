"""Memory is flat."""

from __future__ import annotations

import io
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import theilslopes
from tritonclient.grpc import InferenceServerClient, InferInput

from derma_semantics import DermaClient
from derma_semantics.domain.contract import MAX_BATCH
from derma_semantics.imaging.synthetic import draw
from tests.faults.vitals import SIDECAR, pending, vitals

ROUND = 3.0  # seconds of questions between two readings
BOUND = 500  # bytes an image: 100 MiB for 200,000 images
MAP_BOUND = 5_000  # bytes a map: 95 MiB for 20,000 maps
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


def explained(service, chosen):
    """Asks for a map of one image after another, with a text or a condition in turn."""
    questions = cycle([{"prompt": "an asymmetric pigmented lesion"}, {"condition": "MEL"}])
    with DermaClient(service.url, timeout=120, saliency_url=service.saliency) as client:
        for images in chosen:
            client.explain(images[0], **next(questions))
            yield 1


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
    """Batches of 1 to 32, pictures of all sizes, and maps; the first half of the time only warms up."""
    seconds = 60 * float(os.environ.get("DERMA_SOAK_MINUTES", 0)) or amount(30, 120)
    kinds = (one_by_one, in_batches, explained)
    asks = [ask(service, choices(photographs, seed)) for seed, ask in enumerate(kinds)]
    with ThreadPoolExecutor(len(asks)) as threads:
        warm = sum(threads.map(lambda ask: sum(next(ask) for _ in warm_up(photographs)), asks))
        total, counts, readings = np.zeros(len(asks), int), [], []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            total = total + list(threads.map(a_round, asks))
            counts.append(total)
            readings.append(resting(service, until))
    for ask in asks:
        ask.close()
    half = len(counts) // 2
    counts, readings = np.array(counts[half:]), readings[half:]
    done = {"image": counts[:, :2].sum(axis=1), "map": counts[:, 2]}
    kept = {name: [one[name] for one in readings] for name in readings[0]}
    growth = {name: round(values[-1] - values[0], 1) for name, values in kept.items()}
    slopes = {
        name: slope(done["map" if name in SIDECAR else "image"], values)
        for name, values in kept.items()
        if name != SHARED
    }
    measured = {name: int(values[-1] - values[0]) for name, values in done.items()}
    note(
        "memory",
        seconds=seconds,
        warm_up_images=warm + int(counts[0].sum()),
        images=measured["image"],
        maps=measured["map"],
        most_MiB={name: round(max(values)) for name, values in kept.items()},
        growth_MiB=growth,
        bytes_an_image={name: one for name, one in slopes.items() if name not in SIDECAR},
        bytes_a_map={name: one for name, one in slopes.items() if name in SIDECAR},
    )
    assert max(growth.values()) < JUMP
    if amount(False, True):
        for name, one in slopes.items():
            assert one["low"] <= 0 or one["high"] < (MAP_BOUND if name in SIDECAR else BOUND), (name, one)
            # Zero is in every interval that is wide enough.
            requests = measured["map" if name in SIDECAR else "image"]
            assert one["high"] * requests < JUMP * 2**20, (name, one)
