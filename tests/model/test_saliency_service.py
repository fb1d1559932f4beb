"""The sidecar's HTTP, with an explainer that the tests hold up, and one with the committed bundle."""

import asyncio
import io
import logging
import threading
import time

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from derma_saliency.app import Limits, create_app
from derma_saliency.explainer import Explainer
from derma_semantics.domain import errors
from derma_semantics.domain.contract import MAX_ENCODED_BYTES
from derma_semantics.domain.diagnosis import ServedBundle
from derma_semantics.imaging.preprocess import crop_box
from derma_semantics.saliency import Explanation, HttpSaliency
from derma_training.bundle import Bundle

URL = "http://sidecar"
DIGEST = "ab" * 32


class FakeExplainer:
    """Explains nothing, when the test lets it."""

    name, digest, device = "fake", DIGEST, "cpu"

    def __init__(self):
        self.go = threading.Event()
        self.calls = 0

    def explain(self, image, *, prompt, condition, method):
        self.calls += 1
        assert self.go.wait(10)
        return Explanation(
            prompt or condition, "fake", 0.0, {}, np.zeros((14, 14)), (32, 32), (0, 0, 32, 32), DIGEST
        )


@pytest.fixture
def fake():
    explainer = FakeExplainer()
    yield explainer
    explainer.go.set()


def caller(explainer, limits=None, served=None):
    app = create_app(explainer, limits or Limits(), served)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=URL, timeout=20)


def ask(http, image=b"x", **fields):
    fields = {"prompt": "x", "format": "json", **fields}
    return http.post("/v1/saliency", files={"image": image}, data={k: v for k, v in fields.items() if v})


async def in_flight(http, number):
    async with asyncio.timeout(5):
        while f"derma_saliency_in_flight {number}.0" not in (await http.get("/metrics")).text:
            await asyncio.sleep(0.01)


async def test_overload_is_refused_at_once_with_retry_after(fake):
    async with caller(fake, Limits(in_flight=3)) as http:
        admitted = [asyncio.create_task(ask(http)) for _ in range(3)]
        await in_flight(http, 3)
        refused = await ask(http)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"] == "Overloaded"
        assert "3 requests are in flight" in refused.json()["message"]
        fake.go.set()
        assert [(await one).status_code for one in admitted] == [200] * 3
        await in_flight(http, 0)
        assert (await ask(http)).status_code == 200
        metrics = (await http.get("/metrics")).text
    assert 'derma_saliency_requests_total{outcome="Overloaded"} 1.0' in metrics
    assert 'derma_saliency_requests_total{outcome="ok"} 4.0' in metrics
    assert 'derma_saliency_stage_seconds_count{stage="explain"} 4.0' in metrics


async def test_deadline_frees_a_queued_place_but_not_that_of_a_computation(fake):
    async with caller(fake, Limits(in_flight=2, seconds=0.3)) as http:
        answers = await asyncio.gather(ask(http), ask(http))
        assert [a.status_code for a in answers] == [504, 504]
        assert answers[0].json()["error"] == "DeadlineExceeded"
        await in_flight(http, 1)  # the computation cannot be stopped
        fake.go.set()
        await in_flight(http, 0)
        assert fake.calls == 1  # the queued one was never begun


async def test_too_large_an_image_is_refused_by_its_head_and_while_it_comes(fake):
    async with caller(fake) as http:
        head = await ask(http, image=bytes(MAX_ENCODED_BYTES + 2**17))

        async def endless():
            yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
            for _ in range(400):
                yield bytes(2**16)

        coming = await http.post(
            "/v1/saliency", content=endless(), headers={"content-type": "multipart/form-data; boundary=b"}
        )
    for answer in (head, coming):
        assert answer.status_code == 413
        assert answer.json() == {"error": "ImageTooLarge", "message": answer.json()["message"]}
        assert "20 MiB" in answer.json()["message"]
    assert fake.calls == 0


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"prompt": None}, "either a prompt or a condition"),
        ({"prompt": "x" * 301}, "the limit is 300"),
        ({"prompt": "a\tb"}, "control characters"),
        ({"prompt": None, "condition": "XYZ"}, "unknown condition"),
        ({"method": "magic"}, "unknown method: expected one of attention"),
        ({"format": "gif"}, "unknown format: expected one of png, json, npy"),
        ({"colour": "red"}, "unknown field 'colour'"),
    ],
)
async def test_requests_that_are_refused(fake, fields, reason):
    async with caller(fake) as http:
        answer = await ask(http, **fields)
    assert answer.status_code == 422
    assert answer.json()["error"] == "InvalidRequest"
    assert reason in answer.json()["message"]


async def test_bodies_that_are_no_form(fake):
    async with caller(fake) as http:
        assert (await http.post("/v1/saliency", json={})).status_code == 415
        assert (await http.post("/v1/saliency", data={"prompt": "x"})).status_code == 415
        broken = {"content-type": "multipart/form-data; boundary=b"}
        assert (await http.post("/v1/saliency", content=b"nonsense", headers=broken)).status_code == 422
        no_boundary = {"content-type": "multipart/form-data"}
        assert (await http.post("/v1/saliency", content=b"x", headers=no_boundary)).status_code == 415


async def test_a_failure_says_nothing_of_what_was_sent(fake, caplog):
    def fail(*_, **__):
        raise RuntimeError("secret prompt")

    fake.explain = fail
    caplog.set_level(logging.INFO)
    async with caller(fake) as http:
        answer = await ask(http, prompt="secret prompt")
    assert answer.status_code == 500
    assert answer.json()["error"] == "ServiceError"
    logged = " ".join(r.getMessage() for r in caplog.records if r.name.startswith("derma"))
    assert "RuntimeError" in logged
    assert "secret" not in answer.text + logged


def served(digest):
    async def ask():
        if digest is None:
            raise errors.ServiceUnavailable("no Triton")
        return ServedBundle(digest)

    return ask


@pytest.mark.parametrize(
    ("triton", "status", "verdict"),
    [(DIGEST, 200, "same"), ("cd" * 32, 503, "differs"), (None, 200, "no answer")],
)
async def test_readiness_compares_digests(fake, triton, status, verdict):
    async with caller(fake, served=served(triton)) as http:
        answer = await http.get("/readyz")
    report = answer.json()
    assert (answer.status_code, report["triton"], report["ready"]) == (status, verdict, status == 200)
    assert report["bundle_digest"] == DIGEST
    if status == 503:
        assert "abababababab" in report["message"] and "cdcdcdcdcdcd" in report["message"]
        assert report["triton_digest"] == triton


async def test_without_triton_it_is_ready(fake):
    async with caller(fake) as http:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.get("/readyz")).json()["triton"] == "not given"
        schema = (await http.get("/openapi.json")).json()["paths"]["/v1/saliency"]["post"]
    assert "multipart/form-data" in schema["requestBody"]["content"]


@pytest.fixture(scope="module")
def address(mini):
    """A real server with the committed bundle."""
    app = create_app(Explainer.from_bundle(Bundle.open(mini), device="cpu"), Limits(), None)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + 20
    while not server.started and time.monotonic() < end:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def saliency(address):
    connection = HttpSaliency(address)
    yield connection
    connection.close()


def test_explanation_crosses_the_wire(saliency, jpeg):
    melanoma = saliency.explain(jpeg(0), condition="MEL")
    other = saliency.explain(jpeg(0), prompt="a bright red spot full of blood", method="legrad")
    assert (melanoma.text, melanoma.method, other.method) == ("MEL", "attention", "legrad")
    assert other.text == "a bright red spot full of blood"
    assert melanoma.size == (300, 225) and melanoma.crop == pytest.approx(crop_box((300, 225)))
    assert melanoma.map.shape == (225, 300)
    assert np.abs(melanoma.grid - other.grid).max() > 0.05
    assert saliency.ready()["default_method"] == "attention"


def post(address, image, **fields):
    return httpx.post(f"{address}/v1/saliency", files={"image": image}, data=fields, timeout=20)


def test_png_has_the_photographs_size_and_says_its_source(saliency, address, jpeg, mini):
    answer = post(address, jpeg(0), condition="MEL")
    drawn = Image.open(io.BytesIO(answer.content))
    assert drawn.height == 225 and drawn.width > 300
    same = saliency.explain(jpeg(0), condition="MEL").overlay(jpeg(0))
    assert np.array_equal(np.asarray(drawn), np.asarray(same))
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["derma-method"] == "attention"
    assert answer.headers["derma-bundle-digest"] == Bundle.open(mini).digest


def test_npy_is_the_map(saliency, address, jpeg):
    answer = post(address, jpeg(0), condition="MEL", format="npy")
    relevance = np.load(io.BytesIO(answer.content))
    assert np.array_equal(relevance, saliency.explain(jpeg(0), condition="MEL").map)


def test_too_large_a_map_is_refused_but_its_overlay_is_drawn(address):
    buffer = io.BytesIO()
    Image.new("RGB", (5000, 4000), (200, 150, 130)).save(buffer, "JPEG")
    answer = post(address, buffer.getvalue(), condition="MEL", format="npy")
    assert answer.status_code == 413
    assert "20.0 megapixels exceeds the limit of 16" in answer.json()["message"]
    drawn = post(address, buffer.getvalue(), condition="MEL")
    assert Image.open(io.BytesIO(drawn.content)).height == 1638


def test_bad_images_raise_their_own_class(saliency, jpeg):
    tiny = io.BytesIO()
    Image.new("RGB", (16, 16)).save(tiny, "PNG")
    bad = {
        b"this is text": errors.UnsupportedFormat,
        jpeg(0)[:3000]: errors.CorruptImage,
        tiny.getvalue(): errors.ImageTooSmall,
        bytes(MAX_ENCODED_BYTES + 1): errors.ImageTooLarge,
    }
    for data, kind in bad.items():
        with pytest.raises(errors.InvalidImage) as caught:
            saliency.explain(data, condition="MEL")
        assert type(caught.value) is kind
    with pytest.raises(errors.InvalidRequest, match="unknown method"):
        saliency.explain(jpeg(0), condition="MEL", method="magic")
