"""``derma explain`` and ``derma status``'s sidecar, without one."""

import json

import click.testing
import numpy as np
import pytest
from PIL import Image

from derma_semantics.commands import cli
from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.errors import CorruptImage, InvalidRequest, ServiceUnavailable
from derma_semantics.saliency import Explanation

FOUND = {
    "text": "signs of melanoma",
    "method": "legrad",
    "score": 0.125,
    "probabilities": dict.fromkeys(CODES, 1 / 7),
    "grid": np.linspace(0, 1, 14 * 14, dtype=np.float32).reshape(14, 14),
    "size": (80, 60),
    "crop": (10.0, 0.0, 70.0, 60.0),
    "bundle_digest": "ab" * 32,
}


class FakeClient:
    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def explain(self, image, prompt=None, *, condition=None, method=None):
        self.asked.append((image.name, prompt, condition, method))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def explain(tmp_path):
    """Run ``derma explain`` on a picture; the client is returned beside the result."""
    Image.new("RGB", (80, 60), "pink").save(tmp_path / "a.png")

    def invoke(*arguments, answer=None, out="overlay.png"):
        client = FakeClient(answer or Explanation(**FOUND))
        given = ["explain", tmp_path / "a.png", "--out", tmp_path / out, *arguments]
        result = click.testing.CliRunner().invoke(
            cli.main, list(map(str, given)), obj=lambda *_, **options: client
        )
        return result, client.asked

    return invoke


def test_overlay_map_and_what_was_found(explain, tmp_path):
    options = ("--prompt", "signs of melanoma", "--map", tmp_path / "map.npy")
    result, asked = explain(*options)
    assert result.exit_code == 0, result.output
    assert asked == [("a.png", "signs of melanoma", None, None)]
    for part in ("'signs of melanoma' scores +0.125", "legrad", "abababababab", "Not a medical device"):
        assert part in result.output
    with Image.open(tmp_path / "overlay.png") as overlay:
        assert overlay.format == "PNG" and overlay.width >= 80
    assert np.array_equal(np.load(tmp_path / "map.npy"), Explanation(**FOUND).map)


def test_json(explain, tmp_path):
    result, asked = explain("--condition", "MEL", "--method", "gradcam", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert asked == [("a.png", None, "MEL", "gradcam")]
    assert (report["method"], report["score"], report["size"]) == ("legrad", 0.125, [80, 60])
    assert (report["bundle_digest"], report["map"]) == ("ab" * 32, None)
    assert report["out"] == str(tmp_path / "overlay.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "either --prompt or --condition"),
        (("--prompt", "x", "--condition", "MEL"), "either --prompt or --condition"),
        (("--condition", "XXX"), "XXX"),
        (("--prompt", "x", "--map", "nowhere/map.npy"), "nowhere does not exist"),
    ],
)
def test_usage(explain, options, message):
    result, asked = explain(*options)
    assert result.exit_code == 2 and message in result.output
    assert asked == []


def test_the_overlay_is_a_png(explain):
    result, asked = explain("--prompt", "x", out="overlay.jpg")
    assert result.exit_code == 2 and "ends in .png" in result.output
    assert asked == []


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ServiceUnavailable("http://c:3 is not available"), 3, "derma-saliency serve"),
        (InvalidRequest("unknown method magic; known are ..."), 2, "unknown method magic"),
        (CorruptImage("the JPEG is truncated"), 1, "the JPEG is truncated"),
    ],
)
def test_failures(explain, tmp_path, error, code, message):
    result, _ = explain("--prompt", "x", answer=error)
    assert result.exit_code == code and message in result.output
    assert not (tmp_path / "overlay.png").exists()


def test_a_failed_image_as_json(explain):
    result, _ = explain("--prompt", "x", "--json", answer=CorruptImage("the JPEG is truncated"))
    report = json.loads(result.stdout)
    assert (report["error"], report["message"]) == ("CorruptImage", "the JPEG is truncated")
