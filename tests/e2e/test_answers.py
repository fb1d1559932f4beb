"""A real Triton gives the answers that PyTorch gives, and refuses what it must, one by one."""

import asyncio
import io
import json
import struct
import urllib.request
import zlib

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from derma_semantics import AsyncDermaClient
from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.errors import (
    CorruptImage,
    DeadlineExceeded,
    ImageTooLarge,
    ImageTooSmall,
    InvalidImage,
    UnsupportedFormat,
)
from derma_semantics.domain.quality import REASONS
from derma_semantics.imaging.preprocess import preprocess
from derma_semantics.wire.admin import GRPC_HEADER, admin_key
from derma_training.bundle import Bundle
from derma_training.network.classifier import Classifier

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def torch_answers(mini):
    """The same bytes through PyTorch: (probabilities, risk, triage) of each."""
    classifier = Classifier.from_bundle(Bundle.open(mini))

    def run(images):
        pixels = torch.from_numpy(np.stack([preprocess(image) for image in images]))
        with torch.inference_mode():
            return [classifier(batch) for batch in pixels.split(1)]

    return run


def assert_same(diagnosis, answers):
    served = {f.condition.code: f.probability for f in diagnosis.differential}
    difference = max(
        abs(served[c] - p) for c, p in zip(CODES, answers.probabilities[0].tolist(), strict=True)
    )
    assert difference <= TOLERANCE
    assert abs(diagnosis.risk - answers.risk.item()) <= TOLERANCE
    assert diagnosis.triage == answers.triage.item()
    expected = {
        code for code, member in zip(CODES, answers.prediction_set[0].tolist(), strict=True) if member
    }
    assert {condition.code for condition in diagnosis.prediction_set} == expected
    noticed = zip(REASONS, answers.quality[0].tolist(), strict=True)
    assert diagnosis.quality == tuple(reason for reason, one in noticed if one)
    assert np.abs(diagnosis.embedding - answers.embedding[0].numpy()).max() <= TOLERANCE
    assert diagnosis.top.condition.code == CODES[answers.probabilities.argmax()]


def test_drawn_pictures(client, torch_answers, jpeg):
    images = [jpeg(seed) for seed in range(24)]
    for diagnosis, answers in zip(client.classify(images), torch_answers(images), strict=True):
        assert_same(diagnosis, answers)


def test_real_photographs(client, torch_answers, isic2018):
    paths = sorted((isic2018 / "ISIC2018_Task3_Training_Input").glob("*.jpg"))[::120]
    images = [path.read_bytes() for path in paths]
    for diagnosis, answers in zip(client.classify(images), torch_answers(images), strict=True):
        assert_same(diagnosis, answers)


def test_full_size_photographs(client, torch_answers, fullsize):
    images = [path.read_bytes() for path in sorted((fullsize / "images").glob("*.jpg"))[:12]]
    for diagnosis, answers in zip(client.classify(images), torch_answers(images), strict=True):
        assert_same(diagnosis, answers)


def test_every_way_to_give_an_image(client, jpeg, picture, tmp_path):
    path = tmp_path / "a.png"
    picture(1).save(path)
    answers = client.classify([path, str(path), path.read_bytes(), picture(1), np.asarray(picture(1))])
    assert [a.risk for a in answers] == pytest.approx([answers[0].risk] * 5, abs=1e-6)


async def test_asyncio(service, client, jpeg):
    async with AsyncDermaClient(service.url) as other:
        assert await other.ready()
        assert (await other.classify(jpeg(3))).risk == pytest.approx(client.classify(jpeg(3)).risk, abs=1e-6)
        answers = await other.classify([jpeg(3), b"not an image", jpeg(4)], return_exceptions=True)
    assert isinstance(answers[1], UnsupportedFormat)
    assert answers[2].risk == pytest.approx(client.classify(jpeg(4)).risk, abs=1e-6)


def test_answer_says_which_weights(client, mini):
    bundle = client.bundle()
    assert bundle.digest == Bundle.open(mini).digest
    assert (bundle.name, bundle.precision, bundle.version) == ("derma-mini", "fp32", "1")


def png_of(side):
    """A whole, valid, black PNG of ``side`` x ``side`` pixels, one bit each."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    deflate = zlib.compressobj(1)
    row = bytes(1 + (side + 7) // 8)
    body = b"".join(deflate.compress(row) for _ in range(side)) + deflate.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def tiny_png():
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG")
    return buffer.getvalue()


def executions(raw, model):
    """How many images a model answered, and in how many runs."""
    key = {GRPC_HEADER: admin_key()}
    (stats,) = raw.get_inference_statistics(model, headers=key, as_json=True)["model_stats"]
    return int(stats["inference_count"]), int(stats["execution_count"])


def test_bad_images_fail_alone(client, raw, jpeg):
    """Between good ones, at once, so that they meet in the server's batches."""
    images_before, runs_before = executions(raw, "derma_preprocess")
    bad = {
        b"this is text": UnsupportedFormat,
        jpeg(0)[:3000]: CorruptImage,
        png_of(30_000): ImageTooLarge,
        tiny_png(): ImageTooSmall,
    }
    alone = {seed: client.classify(jpeg(seed)) for seed in range(4)}
    images = [image for seed in range(4) for image in (jpeg(seed), *bad)] * 5
    answers = client.classify(images, return_exceptions=True)
    for image, answer in zip(images, answers, strict=True):
        if image in bad:
            assert type(answer) is bad[image]
        else:
            seed = next(s for s in alone if jpeg(s) == image)
            assert answer.risk == pytest.approx(alone[seed].risk, abs=1e-5)
    images_after, runs_after = executions(raw, "derma_preprocess")
    assert images_after - images_before > runs_after - runs_before, "no batch was formed"


@pytest.fixture
def raw(service):
    with triton.InferenceServerClient(service.url) as client:
        yield client


def image_input(*images):
    tensor = triton.InferInput("IMAGE", [len(images), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[image] for image in images], dtype=np.object_))
    return tensor


def test_one_request_may_hold_a_batch(raw, client, jpeg):
    result = raw.infer("derma_classifier", [image_input(jpeg(0), jpeg(1))])
    assert result.as_numpy("PROBABILITIES").shape == (2, 7)
    assert result.as_numpy("RISK")[1, 0] == pytest.approx(client.classify(jpeg(1)).risk, abs=1e-6)


def test_a_bad_image_is_an_invalid_argument(raw, jpeg):
    with pytest.raises(InferenceServerException) as caught:
        raw.infer("derma_classifier", [image_input(jpeg(0), jpeg(0)[:4000])])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "CorruptImage: the JPEG is truncated" in caught.value.message()


def test_classification_extension_gives_labels(raw, client, jpeg):
    wanted = triton.InferRequestedOutput("PROBABILITIES", class_count=2)
    result = raw.infer("derma_classifier", [image_input(jpeg(2))], outputs=[wanted])
    entries = [entry.decode().split(":") for entry in result.as_numpy("PROBABILITIES")[0]]
    expected = client.classify(jpeg(2)).differential[:2]
    assert [label for _, _, label in entries] == [f.condition.code for f in expected]
    assert [CODES[int(index)] for _, index, _ in entries] == [f.condition.code for f in expected]
    assert float(entries[0][0]) == pytest.approx(expected[0].probability, abs=1e-5)


def test_http_answers_the_same(service, client, jpeg):
    body = {
        "inputs": [
            {"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 0}}
        ],
        "outputs": [{"name": "RISK"}],
    }
    data = struct.pack("<I", len(jpeg(1))) + jpeg(1)
    body["inputs"][0]["parameters"]["binary_data_size"] = len(data)
    head = json.dumps(body).encode()
    request = urllib.request.Request(
        f"{service.http}/v2/models/derma_classifier/infer",
        head + data,
        {"Inference-Header-Content-Length": str(len(head))},
    )
    answer = json.loads(urllib.request.urlopen(request, timeout=30).read())
    assert answer["outputs"][0]["data"][0] == pytest.approx(client.classify(jpeg(1)).risk, abs=1e-6)


def test_http_takes_a_photograph_as_it_is(service, client, jpeg):
    """The README's curl line."""
    request = urllib.request.Request(
        f"{service.http}/v2/models/derma_classifier/infer",
        jpeg(1),
        {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        size = int(answer.headers["Inference-Header-Content-Length"])
        head, body = json.loads(answer.read(size)), answer.read()
    offset = 0
    for output in head["outputs"]:
        length = output["parameters"]["binary_data_size"]
        if output["name"] == "RISK":
            (risk,) = struct.unpack("<f", body[offset : offset + length])
        offset += length
    assert risk == pytest.approx(client.classify(jpeg(1)).risk, abs=1e-6)


def test_an_async_client_may_be_made_before_its_loop(service, jpeg):
    client = AsyncDermaClient(service.url)

    async def ask():
        async with client:
            return await client.classify(jpeg(0))

    assert asyncio.run(ask()).risk >= 0


def test_a_deadline_is_kept(client, jpeg):
    with pytest.raises(DeadlineExceeded):
        client.classify(jpeg(0), timeout=0.0005)
    assert client.classify(jpeg(0)).risk >= 0


@pytest.fixture
def four_bad_files(tmp_path, jpeg):
    contents = {
        "notes.txt": b"dear diary\n",
        "empty.jpg": b"",
        "cut.jpg": jpeg(0)[:4000],
        "huge.png": png_of(30_000),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents]


def test_four_bad_files_have_four_clear_errors(derma, client, four_bad_files, jpeg):
    done = derma("classify", *four_bad_files)
    assert done.returncode == 1
    errors = [line.strip() for line in done.stderr.splitlines() if "error:" in line]
    assert len(set(errors)) == 4
    expected = ("supported format", "empty", "truncated", "900.0 megapixels; the limit is 50")
    for error, words in zip(errors, expected, strict=True):
        assert words in error
    assert client.classify(jpeg(0)).risk >= 0


def test_a_picture_of_something_else_is_answered_and_noticed(derma, client, jpeg, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)).save(
        tmp_path / "a.png"
    )
    noise, lesion = client.classify(tmp_path / "a.png"), client.classify(jpeg(0))
    assert "out_of_distribution" in [reason.code for reason in noise.quality]
    assert len(noise.differential) == len(lesion.differential) == len(CODES)
    assert noise.quality[0].hint in derma("classify", tmp_path / "a.png").stdout


def test_cli_prints_a_differential(derma, jpeg, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    done = derma("classify", tmp_path / "a.jpg", tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("dermatofibroma") >= 2
    assert done.stdout.count("differential at 95 %: ") == 2
    done = derma("classify", tmp_path, "--json")
    record = json.loads(done.stdout)
    assert record["bundle"] == "derma-mini"
    assert record["prediction_set"][0] == record["condition"]
    assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_every_invalid_image_is_one_error_type(client):
    for data in (b"x", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x00\x00\x00WEBP", b"II*\x00", b"BM"):
        with pytest.raises(InvalidImage):
            client.classify(data)
