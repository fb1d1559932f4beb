"""A bad image harms only itself."""

from __future__ import annotations

import json
import multiprocessing
import random
import struct
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import chain

import grpc
import numpy as np
import pytest
import urllib3
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc

from derma_semantics import DermaClient
from derma_semantics.domain.errors import InvalidImage
from derma_semantics.imaging.images import encoded
from derma_semantics.imaging.preprocess import decode, preprocess
from derma_semantics.wire.flow import in_order
from derma_semantics.wire.transport import GrpcTransport
from tests.faults.mutations import mutated
from tests.faults.originals import SIZE, originals
from tests.faults.vitals import recorded, vitals
from tests.hostile import repeated_scans, with_exif

BATCHES = 1e-5  # see test_same_answer
# Some become valid pictures of 50 megapixels.
SLOWEST = 5.0  # seconds of a processor
GROWTH = 64.0  # MiB
ATTACKERS = 50


def verdicts(numbers):
    """What the server's preprocessing says of each damaged image: "valid", or the name of its error.

    And the most seconds of a processor one took. The client, which reads DICOM itself, raises nothing else.
    """
    warnings.simplefilter("ignore")
    found, slowest = {}, 0.0
    for number in numbers:
        data = mutated(number)
        begun = time.process_time()
        found[number] = verdict(number, preprocess, data)
        slowest = max(slowest, time.process_time() - begun)
        verdict(number, encoded, data)
    return found, slowest


def verdict(number, read, data):
    try:
        read(data)
    except InvalidImage as exc:
        return type(exc).__name__
    except Exception as exc:
        raise AssertionError(f"{read.__name__}(mutated({number})) raised {exc!r}") from exc
    return "valid"


@pytest.fixture(scope="module")
def count(amount):
    return amount(400, 20_000)


@pytest.fixture(scope="module")
def expected(count, note):
    """Verdicts without a server, in processes of their own: a decoder that crashes breaks their pool."""
    shares = [range(at, min(count, at + 200)) for at in range(0, count, 200)]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        parts = list(pool.map(verdicts, shares))
    found = dict(chain.from_iterable(found.items() for found, _ in parts))
    slowest = max(slow for _, slow in parts)
    note(
        "bad images, decoded alone",
        inputs=count,
        slowest_CPU_s=slowest,
        verdicts=dict(Counter(found.values())),
    )
    assert slowest < SLOWEST
    return found


def test_decoding_raises_only_its_own_errors(expected, count):
    assert len(expected) == count
    kinds = {"valid", "CorruptImage", "UnsupportedFormat", "ImageTooLarge", "ImageTooSmall", "ImageTooNarrow"}
    assert set(expected.values()) >= kinds


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_second_exif_tag_makes_a_photograph_unreadable(amount, note):
    draw, jpeg, tags = random.Random(1), originals()["jpeg"], amount(1_000, 30_000)
    refused = []
    for _ in range(tags):
        tag = (draw.randrange(65536), draw.randrange(20), draw.randrange(2**32), draw.randbytes(4))
        if decode(with_exif(jpeg, tag)).size != SIZE[::-1]:
            refused.append(tag)
    note("random second EXIF tags", photographs=tags, refused=len(refused))
    assert refused == []


def test_between_good_images(service, expected, count, jpeg, note):
    """In one batch with them, by one connection, 16 under way: every ninth image is a good one."""
    wrong, alone, furthest = [], {}, 0.0
    transport = GrpcTransport(service.url)

    def ask(job):
        try:
            return transport.infer(jpeg(job[1]) if job[0] == "good" else mutated(job[1]), 60.0)
        except InvalidImage as exc:
            return type(exc).__name__

    def jobs():
        for number in range(count):
            yield "bad", number
            if number % 8 == 7:
                yield "good", number // 8 % 8

    for seed in range(8):
        alone[seed] = transport.infer(jpeg(seed), 60.0)["PROBABILITIES"]
    for _ in in_order(ask, [("bad", number) for number in range(64)], 16):
        pass  # warm-up: memory grows with the largest images and the most requests at once
    before = vitals(service)
    with recorded(service) as record:
        for (kind, number), answer in in_order(ask, jobs(), 16):
            if isinstance(answer, Exception):
                wrong.append((kind, number, repr(answer)))
            elif kind == "good":
                furthest = max(furthest, float(np.abs(answer["PROBABILITIES"] - alone[number]).max()))
            elif (answer if isinstance(answer, str) else "valid") != expected[number]:
                wrong.append((kind, number, str(answer)[:80], expected[number]))
    transport.close()
    after = vitals(service)
    growth = {name: grown(readings) for name, readings in record.memory.items()}
    note(
        "bad images, between good ones",
        inputs=count,
        refused=sum(verdict != "valid" for verdict in expected.values()),
        good_ones_between=count // 8,
        wrong_answers=len(wrong),
        furthest_from_answer_alone=furthest,
        memory_growth_MiB=growth,
    )
    assert wrong == []
    assert furthest <= BATCHES
    assert {name: one.pid for name, one in after.items()} == {name: one.pid for name, one in before.items()}
    assert max(growth.values()) < GROWTH


def latencies(service, image, requests):
    """Seconds of each of so many requests, two at a time."""

    def timed(_):
        begun = time.monotonic()
        client.classify(image)
        return time.monotonic() - begun

    with DermaClient(service.url, timeout=60) as client, ThreadPoolExecutor(2) as threads:
        return list(threads.map(timed, range(requests)))


def attack(service, image):
    """Fifty requests at once, each refused."""

    def send(client):
        with pytest.raises(InvalidImage):
            client.classify(image)

    with DermaClient(service.url, timeout=60) as client, ThreadPoolExecutor(ATTACKERS) as threads:
        list(threads.map(send, [client] * ATTACKERS))


def test_good_images_beside_hostile_ones(service, jpeg, amount, note):
    """A JPEG of 1,500 scans is refused before it is decoded, so those who wait behind fifty hardly notice."""
    requests = amount(60, 600)
    latencies(service, jpeg(0), 20)  # warm-up
    alone = np.percentile(latencies(service, jpeg(0), requests), 99)
    with ThreadPoolExecutor(1) as beside:
        attacked = beside.submit(attack, service, repeated_scans(1500))
        together = np.percentile(latencies(service, jpeg(0), requests), 99)
        attacked.result(60)
    note(
        "good images beside 50 hostile ones",
        p99_s={"alone": alone, "beside": together, "ratio": together / alone},
    )
    assert together < amount(10, 2) * alone


def grown(readings):
    """From the second quarter to the last, by medians: a single 50-megapixel image does not count."""
    quarter = max(1, len(readings) // 4)
    return round(float(np.median(readings[-quarter:]) - np.median(readings[quarter : 2 * quarter])), 1)


def tensor(name="IMAGE", datatype="BYTES", shape=(1, 1)):
    return messages.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)


def of(image):
    return struct.pack("<I", len(image)) + image


def request(*inputs, raw=(), model="derma_classifier", outputs=(), **more):
    wanted = [messages.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs]
    return messages.ModelInferRequest(
        model_name=model, inputs=inputs, outputs=wanted, raw_input_contents=raw, **more
    )


def wrong_requests(image):
    """Requests that the protocol allows to write and the model cannot mean: name → request."""
    whole = of(image)
    pixels = bytes(224 * 224 * 3)
    memory = tensor()
    memory.parameters["shared_memory_region"].string_param = "nobody"
    memory.parameters["shared_memory_byte_size"].int64_param = 100
    both = tensor()
    both.contents.bytes_contents.append(image)
    binary = {"model": "derma_preprocess"}
    network = {"model": "derma_biomedclip"}
    return {
        "no input": request(),
        "no data": request(tensor()),
        "empty data": request(tensor(), raw=[b""]),
        "another name": request(tensor("PICTURE"), raw=[whole]),
        "no name": request(tensor(""), raw=[whole]),
        "twice": request(tensor(), tensor(), raw=[whole, whole]),
        "one too many": request(tensor(), tensor("MORE"), raw=[whole, whole]),
        "more data than inputs": request(tensor(), raw=[whole, whole]),
        "data given twice": request(both, raw=[whole]),
        "numbers": request(tensor(datatype="FP32"), raw=[whole]),
        "bytes as numbers": request(tensor(datatype="UINT8"), raw=[whole]),
        "no type": request(tensor(datatype=""), raw=[whole]),
        "an unknown type": request(tensor(datatype="JPEG"), raw=[whole]),
        "no shape": request(tensor(shape=()), raw=[whole]),
        "one axis": request(tensor(shape=(1,)), raw=[whole]),
        "three axes": request(tensor(shape=(1, 1, 1)), raw=[whole]),
        "more than there is": request(tensor(shape=(2, 1)), raw=[whole]),
        "less than there is": request(tensor(shape=(1, 1)), raw=[whole + whole]),
        "two columns": request(tensor(shape=(1, 2)), raw=[whole + whole]),
        "empty batch": request(tensor(shape=(0, 1)), raw=[b""]),
        "a batch of 33": request(tensor(shape=(33, 1)), raw=[whole * 33]),
        "negative": request(tensor(shape=(-1, 1)), raw=[whole]),
        "negative twice": request(tensor(shape=(-1, -1)), raw=[whole]),
        "huge": request(tensor(shape=(2**62, 4)), raw=[whole]),
        "huge once": request(tensor(shape=(1, 2**62)), raw=[whole]),
        "length too long": request(tensor(), raw=[struct.pack("<I", len(image) + 1) + image]),
        "length too short": request(tensor(), raw=[struct.pack("<I", len(image) - 1) + image]),
        "length of 4 GB": request(tensor(), raw=[struct.pack("<I", 2**32 - 1) + image]),
        "length cut off": request(tensor(), raw=[b"\x01"]),
        "unknown output": request(tensor(), raw=[whole], outputs=["ANSWER"]),
        "memory that nobody shares": request(memory),
        "preprocessing of numbers": request(tensor(datatype="FP32"), raw=[whole], **binary),
        "preprocessing of nothing": request(**binary),
        "no images": request(tensor("PIXELS", "UINT8", (0, 224, 224, 3)), raw=[b""], **network),
        "negative images": request(tensor("PIXELS", "UINT8", (-1, 224, 224, 3)), raw=[pixels], **network),
        "more images": request(tensor("PIXELS", "UINT8", (2, 224, 224, 3)), raw=[pixels], **network),
        "few pixels": request(tensor("PIXELS", "UINT8", (1, 224, 224, 3)), raw=[pixels[:100]], **network),
        "small pixels": request(tensor("PIXELS", "UINT8", (1, 1, 1, 3)), raw=[bytes(3)], **network),
        "pixels of 4 bytes": request(tensor("PIXELS", "FP32", (1, 224, 224, 3)), raw=[pixels * 4], **network),
    }


# Triton ignores surplus data, and looks for shared memory before it looks at the model.
OTHERWISE = {"more data than inputs": "OK", "memory that nobody shares": "NOT_FOUND"}


def status(call):
    try:
        call()
    except grpc.RpcError as exc:
        return exc.code().name if exc.details() else "without a word"
    return "OK"


def test_wrong_tensors_over_grpc(service, client, jpeg, note):
    expected = client.classify(jpeg(0)).risk
    before = {name: one.pid for name, one in vitals(service).items()}
    statuses = {}
    with grpc.insecure_channel(service.url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for name, wrong in wrong_requests(jpeg(0)).items():
            statuses[name] = status(lambda wrong=wrong: stub.ModelInfer(wrong, timeout=20))
            assert client.classify(jpeg(0)).risk == pytest.approx(expected, abs=BATCHES), name
    assert {name: one for name, one in statuses.items() if one != "INVALID_ARGUMENT"} == OTHERWISE
    assert {name: one.pid for name, one in vitals(service).items()} == before
    note("wrong tensors, gRPC", requests=len(statuses), statuses=dict(Counter(statuses.values())))


def wrong_bodies(image):
    """name → (body, length of the JSON at its start or None)."""

    def json_of(**changes):
        one = {"name": "IMAGE", "datatype": "BYTES", "shape": [1, 1], "data": ["no image"], **changes}
        return json.dumps({"inputs": [one]}).encode()

    head = json_of(data=[], parameters={"binary_data_size": len(image) + 4})
    told = json.loads(head)
    del told["inputs"][0]["data"]
    head = json.dumps(told).encode()

    def binary(size):
        told["inputs"][0]["parameters"]["binary_data_size"] = size
        return json.dumps(told).encode()

    return {
        "nothing": (b"", None),
        "no JSON": (b"this is text", None),
        "half of it": (head[:30], None),
        "a list": (b"[]", None),
        "a number": (b"7", None),
        "null": (b"null", None),
        "no inputs": (b'{"inputs": []}', None),
        "inputs of text": (b'{"inputs": "IMAGE"}', None),
        "inputs of numbers": (b'{"inputs": [1]}', None),
        "deep": (b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}", None),
        "not UTF-8": (b'{"inputs": "\xff\xfe"}', None),
        "an image as text": (json_of(), None),
        "another name": (json_of(name="PICTURE"), None),
        "a name of numbers": (json_of(name=7), None),
        "another type": (json_of(datatype="FP32", data=[0.5]), None),
        "an unknown type": (json_of(datatype="JPEG"), None),
        "numbers as bytes": (json_of(data=[1]), None),
        "lists of lists": (json_of(data=[[["a"]]]), None),
        "too few": (json_of(shape=[2, 1]), None),
        "negative": (json_of(shape=[-1, 1]), None),
        "a shape of text": (json_of(shape="one"), None),
        "huge": (json_of(shape=[2**62, 4]), None),
        "too many": (json_of(shape=[33, 1], data=["a"] * 33), None),
        "more bytes than sent": (binary(len(image) + 5) + of(image), len(binary(len(image) + 5))),
        "fewer bytes than sent": (binary(9) + of(image), len(binary(9))),
        "negative bytes": (binary(-4) + of(image), len(binary(-4))),
        "a header longer than all": (head + of(image), len(head) + 10**6),
        "a negative header": (head + of(image), -1),
        "a header without a number": (head + of(image), "many"),
        "a header that ends early": (head + of(image), 5),
        "nothing but a header": (head, len(head)),
        "bytes that are no image": (b"no image", 0),
    }


# JSON that Triton cannot read, or whose values are of another kind, is its own failure, it says.
UNREADABLE = {
    "no JSON",
    "half of it",
    "a list",
    "a number",
    "null",
    "inputs of text",
    "not UTF-8",
    "a name of numbers",
    "numbers as bytes",
    "negative",
    "a shape of text",
    "negative bytes",
    "a header that ends early",
}


def test_wrong_bodies_over_http(service, client, jpeg, note):
    expected = client.classify(jpeg(0)).risk
    before = {name: one.pid for name, one in vitals(service).items()}
    statuses = {}
    with urllib3.PoolManager(retries=False) as http:
        for name, (body, length) in wrong_bodies(jpeg(0)).items():
            more = {} if length is None else {"Inference-Header-Content-Length": str(length)}
            answer = http.request(
                "POST",
                f"{service.http}/v2/models/derma_classifier/infer",
                body=body,
                headers={"Content-Type": "application/octet-stream", **more},
                timeout=20.0,
            )
            statuses[name] = answer.status
            assert answer.json()["error"], name
            assert client.classify(jpeg(0)).risk == pytest.approx(expected, abs=BATCHES), name
    assert set(statuses.values()) <= {400, 500}
    assert {name for name, one in statuses.items() if one == 500} == UNREADABLE
    assert {name: one.pid for name, one in vitals(service).items()} == before
    note("wrong bodies, HTTP", requests=len(statuses), statuses=dict(Counter(statuses.values())))


def damaged(rng, data):
    """Where the structure is: near the start and the end of a message whose middle is the image."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 5))):
        at = rng.choice((rng.randrange(min(300, len(changed))), len(changed) - 1 - rng.randrange(80)))
        action = rng.randrange(4)
        if action == 0:
            changed[at] = rng.randrange(256)
        elif action == 1:
            del changed[at : at + rng.randrange(1, 9)]
        elif action == 2:
            changed[at:at] = rng.choice(
                (b"\xff" * 5, b"\x00", b"-1", b"9" * 30, b"[", b'"', rng.randbytes(4))
            )
        else:
            changed[at:at] = changed[at : at + rng.randrange(1, 60)]
    return bytes(changed)


def test_damaged_messages(service, client, jpeg, amount, note):
    """Bytes of both protocols, where the tensors' names, shapes and lengths stand."""
    rng, image = random.Random(1), jpeg(0)
    expected = client.classify(image).risk
    before = {name: one.pid for name, one in vitals(service).items()}
    message = request(tensor(), raw=[of(image)], outputs=["RISK"]).SerializeToString()
    size = {"binary_data_size": len(image) + 4}
    head = {"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "parameters": size}
    start = json.dumps({"inputs": [head], "outputs": [{"name": "RISK"}]}).encode()
    address = f"{service.http}/v2/models/derma_classifier/infer"
    binary = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(start))}
    statuses = Counter()
    with grpc.insecure_channel(service.url) as channel, urllib3.PoolManager(retries=False) as http:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for _ in range(amount(150, 3000)):
            wrong = damaged(rng, message)
            statuses["gRPC " + status(lambda wrong=wrong: infer(wrong, timeout=20))] += 1
            body = damaged(rng, start) + of(image)
            answer = http.request("POST", address, body=body, headers=binary, timeout=20.0)
            statuses[f"HTTP {answer.status}"] += 1
    assert client.classify(image).risk == pytest.approx(expected, abs=BATCHES)
    assert {name: one.pid for name, one in vitals(service).items()} == before
    note("damaged messages", messages=statuses.total(), statuses=dict(sorted(statuses.items())))
