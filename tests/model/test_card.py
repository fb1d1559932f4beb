"""``derma-train evaluate`` on the committed bundle, and the card written from its report."""

import json
from dataclasses import replace

import click.testing
import pytest

from derma_semantics.domain.conditions import CODES
from derma_semantics.evaluation.truth import Case
from derma_training.bundle import Bundle
from derma_training.bundle.split import part_of
from derma_training.calibration.scaling import Scaling
from derma_training.calibration.thresholds import calibrate
from derma_training.cli import main
from derma_training.data import labels, read
from derma_training.evaluate import SEEN, answers, evaluate
from derma_training.learning.card import model_card
from derma_training.learning.config import load

IMAGES = 28


@pytest.fixture(scope="module")
def isic(tmp_path_factory, write_isic):
    """Drawn pictures in the official layout, four of each condition, two of each lesion."""
    cases = [Case(f"DRAWN_{i:03d}", i // 2 % 7, f"L{i // 2}") for i in range(IMAGES)]
    return write_isic(tmp_path_factory.mktemp("isic"), cases)


@pytest.fixture(scope="module")
def bundle(mini):
    return Bundle.open(mini)


def run(*arguments):
    return click.testing.CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def test_command_writes_what_derma_evaluate_writes(isic, mini, tmp_path):
    result = run(mini, "--data", isic, "--part", "all", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (report["images"], report["lesions"], report["part"]) == (IMAGES, IMAGES // 2, "all")
    assert report["official"]["balanced_accuracy"] == pytest.approx(report["balanced_accuracy"]["value"])
    assert report["subgroups"]["site"]["back"]["images"] == IMAGES
    assert report["prediction_sets"]["coverage"]["n"] == IMAGES
    assert "note" not in report  # a part of no data that the bundle was made from
    names = {path.name for path in (tmp_path / "out").iterdir()}
    plots = {"confusion.png", "roc.png", "reliability.png", "risk.png"}
    assert names == plots | {"metrics.json", "submission.csv", "truth.csv"}


def test_parts_are_those_of_the_bundle(isic, mini, bundle):
    result = run(mini, "--data", isic)
    assert result.exit_code == 1
    assert "the data lacks" in result.output
    with pytest.raises(ValueError, match="has no images of part 'nothing' in split.json"):
        part_of(bundle, [], "nothing")


def test_images_that_training_may_have_seen_are_called_so(isic, mini, bundle):
    held_out = json.loads((mini / "split.json").read_text())["test"][0]
    first, *rest = read(isic)
    report = evaluate(bundle, [replace(first, name=held_out), *rest], part="all")
    assert report["note"] == SEEN


def test_card_tells_what_was_measured_and_how(isic, bundle, pytestconfig):
    config = load(pytestconfig.rootpath / "training" / "configs" / "derma-mini.toml")
    examples = read(isic)
    words = {"definitions": 0.7, "paraphrases_together": 0.6, "paraphrase_sets": [0.5], "mean": 0.5}
    source = {"data": "drawn pictures", "training_data": "drawn pictures"}
    report = {**source, "text": {"wording": words}, **evaluate(bundle, examples)}
    probabilities, _ = answers(bundle, examples)
    calibration = calibrate(probabilities, labels(examples).numpy(), Scaling(), name="drawn")
    counts = {"train": 11, "validation": 22, "calibration": 33, "test": IMAGES}
    card = model_card(config, counts, report, calibration)
    assert "11 images for training, 22 for validation, 33 for calibration, 28 for the" in card
    assert f"balanced accuracy   {report['balanced_accuracy']['value']:.3f}" in card
    assert "official scorer     isic-challenge-scoring" in card
    assert all(code in card for code in CODES)
    assert "**Calibration.** Temperature 1.000 from nothing; thresholds from\n28 images, drawn." in card
    assert "unseen paraphrases, averaged           0.600" in card
    assert "(full, 10 epochs, the mean of 3 networks)" in card
    taught = load(pytestconfig.rootpath / "training" / "configs" / "balanced.toml", ["phases.0.teachers=2"])
    card = model_card(taught, counts, report, calibration)
    assert "(full, 20 epochs, taught by 2 networks like it), then LoRA adapters (lora, 1 epoch)" in card
