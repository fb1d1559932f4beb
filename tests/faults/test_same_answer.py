"""Same image, same answer: whoever asks, however, and beside whom."""

from __future__ import annotations

import asyncio
import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import urllib3
from tritonclient.grpc import InferenceServerClient, InferInput

from derma_semantics import AsyncDermaClient
from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.contract import NETWORK
from derma_semantics.wire.transport import ModelControl
from derma_training.bundle import Bundle

# What the gate allows where other images share the batch, in fp32 (export/derma_export/gate.py).
BATCHES = 1e-5
IMAGES = 8


@pytest.fixture(scope="module")
def digest(mini):
    return Bundle.open(mini).digest


@pytest.fixture(scope="module")
def images(picture, jpeg, tmp_path_factory):
    """Of several sizes, as files and as bytes."""
    folder = tmp_path_factory.mktemp("images")
    for seed in range(IMAGES):
        (folder / f"{seed}.jpg").write_bytes(jpeg(seed))
    picture(IMAGES - 1).resize((1200, 900)).save(folder / f"{IMAGES - 1}.jpg", quality=90)
    return sorted(folder.iterdir())


def row(diagnosis):
    """Probabilities in the conditions' order, and which bundle gave them."""
    by_code = {finding.condition.code: finding.probability for finding in diagnosis.differential}
    return [by_code[code] for code in CODES], diagnosis.bundle.digest


@pytest.fixture
def alone(client, images):
    """Each asked after the one before was answered."""
    return [row(client.classify(path)) for path in images]


def by_list(client, images, **_):
    return [row(answer) for answer in client.classify(images)]


def by_many(client, images, **_):
    return [row(answer) for _, answer in client.classify_many(iter(images), in_flight=4)]


def by_asyncio(service, images, **_):
    async def ask():
        async with AsyncDermaClient(service.url) as client:
            return await asyncio.gather(*map(client.classify, images))

    return [row(answer) for answer in asyncio.run(ask())]


def by_pixels(client, images, **_):
    """Decoded here; the client sends what preprocessing makes of them."""
    from derma_semantics.imaging.preprocess import decode

    return [row(client.classify(np.asarray(decode(path.read_bytes())))) for path in images]


def by_batch(service, images, **_):
    """All in one request."""
    tensor = InferInput("IMAGE", [len(images), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[path.read_bytes()] for path in images], dtype=np.object_))
    with InferenceServerClient(service.url) as raw:
        answer = raw.infer("derma_classifier", [tensor])
    digests = [bytes(one).hex() for one in answer.as_numpy("BUNDLE")]
    return list(zip(answer.as_numpy("PROBABILITIES").tolist(), digests, strict=True))


def by_http(service, images, **_):
    return [over_http(service, path.read_bytes()) for path in images]


def over_http(service, image):
    size = {"binary_data_size": len(image) + 4}
    asked = [{"name": name, "parameters": {"binary_data": False}} for name in ("PROBABILITIES", "BUNDLE")]
    tensor = {"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "parameters": size}
    head = json.dumps({"inputs": [tensor], "outputs": asked}).encode()
    answer = urllib3.request(
        "POST",
        f"{service.http}/v2/models/derma_classifier/infer",
        body=head + struct.pack("<I", len(image)) + image,
        headers={
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
            "Connection": "close",
        },
        timeout=30.0,
    )
    values = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    return values["PROBABILITIES"], bytes(values["BUNDLE"]).hex()


def derma(service, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "derma_semantics", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "DERMA_URL": service.url},
        check=True,
    )
    return done.stdout


def by_command(service, images, **_):
    records = [json.loads(line) for line in derma(service, "classify", "--json", *images).splitlines()]
    return [([one["probabilities"][code] for code in CODES], one["bundle_digest"]) for one in records]


def by_bulk(service, images, tmp_path, **_):
    derma(service, "bulk", images[0].parent, "--out", tmp_path / "answers.jsonl")
    records = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [Path(one["image"]).name for one in records] == [path.name for path in images]
    return [([one["probabilities"][code] for code in CODES], one["bundle_digest"]) for one in records]


WAYS = (by_list, by_many, by_asyncio, by_pixels, by_batch, by_http, by_command, by_bulk)


def distance(answers, alone):
    """The largest difference of a probability."""
    pairs = zip(answers, alone, strict=True)
    return max(float(np.abs(np.subtract(one, other)).max()) for (one, _), (other, _) in pairs)


def test_every_way_to_ask(service, client, images, alone, digest, tmp_path, note):
    furthest = {}
    for way in WAYS:
        answers = way(service=service, client=client, images=images, tmp_path=tmp_path)
        furthest[way.__name__.removeprefix("by_")] = distance(answers, alone)
        assert {one for _, one in answers} == {digest}, way.__name__
    note("same answer, every way to ask", images=len(images), largest_difference=furthest)
    assert max(furthest.values()) <= BATCHES, furthest


def executions(service):
    """How often the network ran, by the number of images."""
    control = ModelControl(service.url)
    rows = control.statistics()["model_stats"]
    control.close()
    network = next(one for one in rows if one["name"] == NETWORK.name)
    return {
        int(batch["batch_size"]): int(batch["compute_infer"]["count"]) for batch in network["batch_stats"]
    }


def test_any_order_and_company(service, client, images, alone, digest, amount, note):
    """Shuffled, 1 to 32 at a time, so that batches of all sizes form and all instances answer."""
    rng, furthest, asked = random.Random(0), 0.0, 0
    before = executions(service)
    for _ in range(amount(8, 20)):
        order = [rng.randrange(IMAGES) for _ in range(rng.randrange(1, 65))]
        found = client.classify_many([images[n] for n in order], in_flight=rng.choice((1, 2, 5, 16, 32)))
        answers = [row(answer) for _, answer in found]
        furthest = max(furthest, distance(answers, [alone[n] for n in order]))
        asked += len(order)
        assert {one for _, one in answers} == {digest}
    runs = {size: count - before.get(size, 0) for size, count in sorted(executions(service).items())}
    by_size = {size: count for size, count in runs.items() if count}
    note(
        "same answer, any order and company",
        requests=asked,
        largest_difference=furthest,
        runs_by_batch_size=by_size,
    )
    assert furthest <= BATCHES
    assert len(by_size) > 3, "hardly any batches were formed"
