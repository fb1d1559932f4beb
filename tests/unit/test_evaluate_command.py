"""``derma evaluate`` over an injected transport: what it writes, and how it goes on."""

import csv
import io
import json
import threading

import click.testing
import numpy as np
import pytest
from PIL import Image

from derma_semantics.client import DermaClient
from derma_semantics.commands import cli
from derma_semantics.domain.errors import CorruptImage, ServiceUnavailable
from derma_semantics.domain.formats import DICOM, FORMATS, HEIF
from derma_semantics.evaluation import plots
from derma_semantics.evaluation.truth import Case, write_truth
from tests.unit.photographs import IDENTITY, dataset, rgb, saved, stream

DIGEST = "ab" * 32
IMAGES = 70


class FakeTransport:
    """The first byte of an image is its condition; ``b"bad"`` is refused."""

    def __init__(self):
        self.digest = DIGEST
        self.away_after = None
        self.sent = []
        self.lock = threading.Lock()

    def infer(self, image, timeout, request_id):
        with self.lock:
            if self.away_after is not None and len(self.sent) >= self.away_after:
                raise ServiceUnavailable("host:1 is not available")
            self.sent.append(image)
        if image == b"bad":
            raise CorruptImage("the JPEG is truncated")
        probabilities = np.full(7, 0.05, np.float32)
        probabilities[image[0] % 7] = 0.7
        return {
            "PROBABILITIES": probabilities,
            "RISK": np.array([0.8], np.float32),
            "TRIAGE": np.array([2 if image[0] % 7 == 0 else 0], np.int32),
            "PREDICTION_SET": probabilities > 0.5,
            "EMBEDDING": np.ones(4, np.float32) / 2,
            "BUNDLE": np.frombuffer(bytes.fromhex(self.digest), np.uint8),
        }

    def network(self, timeout):
        if self.away_after == 0:
            raise ServiceUnavailable("host:1 is not available")
        return {"bundle_name": "mini", "bundle_digest": self.digest, "precision": "fp32", "version": "3"}

    def ready(self, timeout):
        return True

    def close(self):
        pass


@pytest.fixture
def transport():
    return FakeTransport()


@pytest.fixture
def evaluate(tmp_path, transport, few_draws, monkeypatch):
    """Run ``derma evaluate``, without plots, on 70 images, ten of each condition, all recognised."""
    for name in ("draw_confusion", "draw_roc", "draw_reliability", "draw_risk"):
        monkeypatch.setattr(plots, name, lambda *_: None)
    images = tmp_path / "images"
    images.mkdir()
    cases = [Case(f"ISIC_{i:07d}", i % 7, f"L{i}") for i in range(IMAGES)]
    for case in cases:
        (images / f"{case.name}.jpg").write_bytes(bytes([case.condition]) + case.name.encode())
    write_truth(tmp_path / "truth.csv", cases)

    def client(url, **_):
        return DermaClient(url, retry_for=0, transport=transport)

    def invoke(*more):
        options = {"--images": images, "--truth": tmp_path / "truth.csv", "--out": tmp_path / "out"}
        given = [str(part) for option in options.items() for part in option]
        return click.testing.CliRunner().invoke(cli.main, ["evaluate", *given, *map(str, more)], obj=client)

    return invoke


def test_every_image_is_asked_once_and_measured(evaluate, transport, tmp_path):
    result = evaluate("--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert len(transport.sent) == len(set(transport.sent)) == report["images"] == IMAGES
    assert report == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert report["balanced_accuracy"]["value"] == report["official"]["balanced_accuracy"] == 1
    assert report["bundle"]["bundle_digest"] == DIGEST
    assert report["triage"]["urgent"]["melanoma"]["sensitivity"]["value"] == 1
    assert report["prediction_sets"]["coverage"]["value"] == report["prediction_sets"]["mean_size"] == 1
    _, *rows = csv.reader((tmp_path / "out" / "submission.csv").open())
    assert [float(p) for p in rows[0][1:]] == [np.float32(0.7), *[np.float32(0.05)] * 6]
    assert (tmp_path / "out" / "errors.csv").read_text().splitlines() == ["image,error,message"]


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_images_of_every_format_are_measured(evaluate, transport, tmp_path, kind):
    """What the server does not read is sent as a PNG of its pixels; a patient's name stays here."""
    if kind is HEIF:
        pytest.importorskip("pillow_heif").register_heif_opener()
    (tmp_path / "images" / "ISIC_0000000.jpg").unlink()
    data = saved(dataset(rgb())) if kind is DICOM else stream(rgb(), kind.name)
    (tmp_path / "images" / f"ISIC_0000000{kind.suffixes[0]}").write_bytes(data)
    result = evaluate("--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["images"] == IMAGES
    (sent,) = (image for image in transport.sent if len(image) > 100)
    assert Image.open(io.BytesIO(sent)).format == (kind.name if kind.service else "PNG")
    assert IDENTITY.encode() not in sent


def test_summary_is_for_people(evaluate):
    result = evaluate()
    assert "balanced accuracy   1.000" in result.stdout
    assert "no lesion ids" in result.stdout
    assert "asking" not in result.stdout  # the bar goes to stderr


def test_metadata_gives_lesions_and_groups(evaluate, tmp_path):
    rows = [f"ISIC_{i:07d},L{i // 14},{20 + i},female" for i in range(IMAGES)]
    (tmp_path / "about.csv").write_text("\n".join(["image_id,lesion_id,age,sex", *rows]))
    result = evaluate("--metadata", tmp_path / "about.csv")
    assert f"images              {IMAGES} of 5 lesions\n" in result.stdout
    assert "sex female" in result.stdout
    assert "age: 5 more with 70 images, too few to state a figure" in result.stdout


def test_an_interrupted_run_goes_on(evaluate, transport, tmp_path):
    transport.away_after = 40
    first = evaluate()
    assert first.exit_code == 3
    assert "host:1 is not available" in first.output and "make serve" in first.output
    assert not (tmp_path / "out" / "metrics.json").exists()
    journal = tmp_path / "out" / "answers.jsonl"
    assert len(journal.read_text().splitlines()) == 40
    with journal.open("a") as file:
        file.write('{"image": "ISIC_00000')  # as a kill leaves it
    transport.away_after = None
    second = evaluate("--json")
    assert second.exit_code == 0, second.output
    assert len(transport.sent) == len(set(transport.sent)) == IMAGES
    assert json.loads(second.stdout)["images"] == IMAGES
    assert len([json.loads(line) for line in journal.read_text().splitlines()]) == IMAGES
    evaluate()
    assert len(transport.sent) == IMAGES  # nothing is asked twice


def test_no_service_exits_3(evaluate, transport):
    transport.away_after = 0
    assert evaluate().exit_code == 3


def test_refused_images_count_as_wrong_and_are_asked_again(evaluate, transport, tmp_path):
    image = tmp_path / "images" / "ISIC_0000000.jpg"
    good = image.read_bytes()
    image.write_bytes(b"bad")
    result = evaluate("--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["unanswered"], report["refused"]["images"]) == (1, 1)
    assert report["accuracy"] == (IMAGES - 1) / IMAGES
    assert report["melanoma"]["sensitivity"]["value"] == 9 / 10
    assert report["official"]["balanced_accuracy"] == pytest.approx((6 + 9 / 10) / 7)
    _, row = csv.reader((tmp_path / "out" / "errors.csv").open())
    assert row == ["ISIC_0000000", "CorruptImage", "the JPEG is truncated"]
    assert "1, counted as wrong" in evaluate().stdout
    image.write_bytes(good)
    assert evaluate().exit_code == 0
    assert len(transport.sent) == IMAGES + 2


def test_answers_of_two_bundles_are_never_mixed(evaluate, transport, tmp_path):
    transport.away_after = 20
    evaluate()
    transport.away_after, transport.digest = None, "cd" * 32
    result = evaluate()
    assert result.exit_code == 2
    assert "answers of bundle abababababab, but the service now answers with cdcdcdcdcdcd" in result.output
    assert len((tmp_path / "out" / "answers.jsonl").read_text().splitlines()) == 20


def test_a_roll_out_in_the_middle_ends_the_run(evaluate, transport, monkeypatch, tmp_path):
    network = transport.network(1)
    monkeypatch.setattr(transport, "network", lambda timeout: network)
    transport.digest = "cd" * 32
    result = evaluate()
    assert result.exit_code == 2
    assert "the service now answers with cdcdcdcdcdcd" in result.output
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_answers_to_other_images_are_refused(evaluate, tmp_path):
    evaluate()
    lines = (tmp_path / "truth.csv").read_text().splitlines()
    (tmp_path / "truth.csv").write_text("\n".join(lines[:-1]))
    result = evaluate()
    assert result.exit_code == 2
    assert "holds answers to 1 images that are not in the ground truth, e.g. ISIC_0000069" in result.output


def test_bad_input_ends_in_one_line(evaluate, tmp_path):
    (tmp_path / "images" / "ISIC_0000003.jpg").unlink()
    result = evaluate()
    assert result.exit_code == 2
    assert "lacks 1 of 70 images" in result.output and "Traceback" not in result.output
    assert click.testing.CliRunner().invoke(cli.main, ["evaluate", "--images", "x"]).exit_code == 2
