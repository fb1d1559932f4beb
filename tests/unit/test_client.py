"""The client's logic over an injected transport; the real one is tested in e2e."""

import asyncio
import io
import threading

import numpy as np
import pytest
from PIL import Image

from derma_semantics import AsyncDermaClient, DermaClient, Triage
from derma_semantics.client import IN_FLIGHT
from derma_semantics.domain.errors import (
    CorruptImage,
    DeadlineExceeded,
    EmptyImage,
    ImageTooLarge,
    ServiceUnavailable,
)
from derma_semantics.imaging.images import encoded
from derma_semantics.imaging.preprocess import preprocess
from derma_semantics.wire.transport import _translate

DIGEST = "ab" * 32
CODES_OF_XX = np.array([True, False, True, False, False, False, False])  # MEL, BCC


class FakeTransport:
    """Answers from the length of the image; ``b"bad"`` is refused."""

    def __init__(self, digest=DIGEST, meet=None):
        self.digest = digest
        self.meet = meet
        self.sent = []
        self.timeouts = []
        self.network_calls = 0
        self.under_way = 0
        self.most_under_way = 0
        self.lock = threading.Lock()

    def infer(self, image, timeout, request_id):
        with self.lock:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            self.sent.append(image)
            self.timeouts.append(timeout)
        try:
            if self.meet:
                self.meet.wait(10)
            if image == b"bad":
                raise CorruptImage("the JPEG is truncated")
            probabilities = np.full(7, 0.05, np.float32)
            probabilities[len(image) % 7] = 0.7
            return {
                "PROBABILITIES": probabilities,
                "RISK": np.array([0.8], np.float32),
                "TRIAGE": np.array([2], np.int32),
                "PREDICTION_SET": probabilities >= np.float32(0.7) if image != b"xx" else CODES_OF_XX,
                "EMBEDDING": np.ones(4, np.float32) / 2,
                "BUNDLE": np.frombuffer(bytes.fromhex(self.digest), np.uint8),
            }
        finally:
            with self.lock:
                self.under_way -= 1

    def network(self, timeout):
        self.network_calls += 1
        return {"bundle_name": "mini", "bundle_digest": DIGEST, "precision": "fp32", "version": "3"}

    def ready(self, timeout):
        return True

    def close(self):
        self.closed = True


class FakeAsyncTransport(FakeTransport):
    running = 0
    most_running = 0

    async def infer(self, image, timeout, request_id):
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0.01)
        self.running -= 1
        return super().infer(image, timeout, request_id)

    async def network(self, timeout):
        return super().network(timeout)

    async def ready(self, timeout):
        return True

    async def close(self):
        self.closed = True


def test_diagnosis_is_ranked_and_typed():
    with DermaClient(transport=FakeTransport()) as client:
        diagnosis = client.classify(b"xx")
    assert diagnosis.top.condition.code == "BCC"
    probabilities = [f.probability for f in diagnosis.differential]
    assert probabilities == sorted(probabilities, reverse=True)
    assert diagnosis.top.probability == pytest.approx(0.7)
    assert diagnosis.risk == pytest.approx(0.8)
    assert diagnosis.triage is Triage.URGENT
    assert (diagnosis.bundle.name, diagnosis.bundle.version) == ("mini", "3")
    assert [c.code for c in diagnosis.prediction_set] == ["BCC", "MEL"]  # most probable first
    assert diagnosis.high_risk
    assert diagnosis.to_dict()["condition"] == "BCC"
    assert diagnosis.to_dict()["high_risk"] is True
    assert diagnosis.to_dict()["prediction_set"] == ["BCC", "MEL"]


def test_probabilities_where_conditions_are_not_equally_frequent():
    with DermaClient(transport=FakeTransport()) as client:
        diagnosis = client.classify(b"xx")
    plain = {finding.condition.code: finding.probability for finding in diagnosis.differential}
    assert diagnosis.at_prevalence(dict.fromkeys(plain, 3)) == pytest.approx(plain)
    weighed = diagnosis.at_prevalence({**dict.fromkeys(plain, 0), "BCC": 1, "NV": 9})
    assert weighed["BCC"] == pytest.approx(plain["BCC"] / (plain["BCC"] + 9 * plain["NV"]))
    assert list(weighed.values()) == sorted(weighed.values(), reverse=True)
    with pytest.raises(ValueError, match="must name MEL, NV, .* and names MEL, naevus"):
        diagnosis.at_prevalence({"MEL": 1, "naevus": 9})


def test_lists_keep_their_order():
    images = [b"x" * (n + 1) for n in range(100)]
    client = DermaClient(transport=FakeTransport())
    codes = [a.top.condition.code for a in client.classify(images)]
    assert codes[:7] == ["NV", "BCC", "AKIEC", "BKL", "DF", "VASC", "MEL"]
    assert codes == (codes[:7] * 15)[:100]
    assert client.classify([]) == []


def test_sixteen_images_are_under_way_at_a_time():
    """Each waits until fifteen others are: with fewer at a time none would end."""
    transport = FakeTransport(meet=threading.Barrier(IN_FLIGHT))
    DermaClient(transport=transport).classify([b"x"] * (4 * IN_FLIGHT))
    assert transport.most_under_way == IN_FLIGHT


def test_a_bad_image_raises_or_stands_in_its_place():
    client = DermaClient(transport=FakeTransport())
    with pytest.raises(CorruptImage):
        client.classify([b"x", b"bad", b"xx"])
    first, second, third = client.classify([b"x", b"bad", b"xx"], return_exceptions=True)
    assert (first.top.condition.code, third.top.condition.code) == ("NV", "BCC")
    assert isinstance(second, CorruptImage)


def test_bundle_is_asked_for_once_a_digest():
    transport = FakeTransport()
    client = DermaClient(transport=transport)
    client.classify(b"x")
    client.classify(b"x")
    assert transport.network_calls == 1


def test_unknown_digest_is_never_given_another_bundle_s_name():
    diagnosis = DermaClient(transport=FakeTransport(digest="cd" * 32)).classify(b"x")
    assert diagnosis.bundle.digest == "cd" * 32
    assert diagnosis.bundle.name is None


def test_an_answer_counts_though_its_bundle_s_name_cannot_be_had():
    class Nameless(FakeTransport):
        def network(self, timeout):
            raise ServiceUnavailable("unloaded")

    diagnosis = DermaClient(transport=Nameless()).classify(b"x")
    assert (diagnosis.bundle.digest, diagnosis.bundle.name) == (DIGEST, None)


def test_timeout_of_client_and_call():
    transport = FakeTransport()
    client = DermaClient(transport=transport, timeout=7)
    client.classify(b"x")
    client.classify(b"x", timeout=2)
    assert transport.timeouts == [pytest.approx(7, abs=0.5), pytest.approx(2, abs=0.5)]
    with pytest.raises(DeadlineExceeded):
        client.classify(b"x", timeout=0)


async def test_async_lists_are_bounded():
    transport = FakeAsyncTransport()
    await AsyncDermaClient(transport=transport).classify([b"x"] * 60)
    assert transport.most_running == IN_FLIGHT


async def test_async_twin():
    async with AsyncDermaClient(transport=FakeAsyncTransport()) as client:
        assert (await client.classify(b"xx")).top.condition.code == "BCC"
        answers = await client.classify([b"x", b"bad"], return_exceptions=True)
        assert answers[0].top.condition.code == "NV"
        assert isinstance(answers[1], CorruptImage)
        with pytest.raises(CorruptImage):
            await client.classify([b"x", b"bad"])
        assert await client.ready()


def test_files_are_sent_as_they_are(tmp_path, picture):
    path = tmp_path / "a.png"
    picture(0).save(path)
    data = path.read_bytes()
    assert encoded(path) == encoded(str(path)) == encoded(data) == encoded(bytearray(data)) == data


def test_pixels_become_what_their_file_would(picture):
    """Rotated by EXIF, 16 bits deep, large, or an array: the server sees the same pixels."""
    rgb = picture(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated, deep = io.BytesIO(), io.BytesIO()
    rgb.save(rotated, "JPEG", exif=exif)
    Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) << 8).save(deep, "PNG")
    for file in (rotated.getvalue(), deep.getvalue()):
        assert (preprocess(encoded(Image.open(io.BytesIO(file)))) == preprocess(file)).all()
    lossless = io.BytesIO()
    rgb.save(lossless, "PNG")
    assert (preprocess(encoded(np.asarray(rgb))) == preprocess(lossless.getvalue())).all()
    noise = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
    assert len(encoded(noise)) < 200_000


def test_what_does_not(tmp_path):
    with pytest.raises(TypeError, match="int"):
        encoded(3)
    with pytest.raises(ValueError, match=r"float64 \(2, 2\)"):
        encoded(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="uint8 array"):
        encoded(np.zeros((2, 2, 4), np.uint8))
    with pytest.raises(EmptyImage):
        encoded(b"")
    with pytest.raises(ImageTooLarge):
        encoded(bytes(21 * 2**20))
    with pytest.raises(OSError, match="nothing"):
        encoded(tmp_path / "nothing.jpg")


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        ("INVALID_ARGUMENT", "in ensemble 'x', CorruptImage: damaged", "CorruptImage"),
        ("INVALID_ARGUMENT", "unexpected inference input 'FOO'", "InvalidRequest"),
        ("UNAVAILABLE", "failed to connect to all addresses", "ServiceUnavailable"),
        ("UNAVAILABLE", "in ensemble 'x', Exceeds maximum queue size", "Overloaded"),
        ("UNAVAILABLE", "Request timeout expired", "Overloaded"),
        ("NOT_FOUND", "Request for unknown model: 'derma_classifier' is not found", "ServiceUnavailable"),
        ("INTERNAL", "Stub process 'derma_preprocess_0_1' is not healthy.", "ServiceUnavailable"),
        ("CANCELLED", "the server shuts down", "ServiceUnavailable"),
        ("UNAUTHENTICATED", "no token", "AccessDenied"),
        ("INTERNAL", "something else", "ServiceError"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", "DeadlineExceeded"),
        ("", "unreadable", "ServiceError"),
    ],
)
def test_grpc_errors_map_to_one_tree(status, message, expected):
    assert type(_translate("host:1", status, message)).__name__ == expected
