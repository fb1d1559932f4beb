"""Data, metrics, calibration, and a training run that is small but real."""

import csv
import json

import click.testing
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from derma_semantics.conditions import CODES, CONDITIONS
from derma_training import architecture, data
from derma_training.bundle import Bundle, BundleError
from derma_training.calibrate import calibrate, fit_temperature
from derma_training.classifier import Normalise
from derma_training.cli import main
from derma_training.fit import Phase, TrainingSet, _sampling, fit
from derma_training.metrics import (
    balanced_accuracy,
    calibration_error,
    measure,
    rate,
    specificity_at,
    threshold_for_sensitivity,
)
from derma_training.model import add_lora, build_model, encode_conditions, load_tokenizer
from derma_training.recipe import make_mini, train_weights


@pytest.fixture
def isic_folder(tmp_path, jpeg):
    """A tiny data set in the official layout: 20 lesions a condition, some seen twice."""
    images = tmp_path / data.IMAGES
    images.mkdir()
    truth, lesions = [], []
    for number in range(20 * 7 + 10):
        lesion = number if number < 140 else number - 140  # the last ten repeat the first ten lesions
        name = f"ISIC_{number:07d}"
        (images / f"{name}.jpg").write_bytes(jpeg(number % 3))
        truth.append([name, *(1.0 if i == lesion % 7 else 0.0 for i in range(7))])
        lesions.append([f"HAM_{lesion:07d}", name])
    write_csv(tmp_path / data.TRUTH, ["image", *CODES], truth)
    write_csv(tmp_path / "HAM10000_metadata.csv", ["lesion_id", "image_id"], lesions)
    return tmp_path


def write_csv(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def test_split_keeps_lesions_together(isic_folder):
    examples = data.read_isic2018(isic_folder)
    parts = data.split_by_lesion(examples, seed=3)
    lesions = [{e.lesion for e in part} for part in (parts.train, parts.calibration, parts.test)]
    assert not (lesions[0] & lesions[1] or lesions[0] & lesions[2] or lesions[1] & lesions[2])
    assert sum(len(part) for part in (parts.train, parts.calibration, parts.test)) == len(examples) == 150
    for part in (parts.calibration, parts.test):
        counts = torch.bincount(data.labels(part), minlength=7)
        assert (counts >= 2).all()  # a tenth of twenty lesions
    assert data.split_by_lesion(examples, seed=3) == parts
    assert data.split_by_lesion(examples, seed=4) != parts


def test_pixels_are_those_of_preprocessing(isic_folder, jpeg):
    from derma_semantics.preprocess import preprocess

    pixels = data.load_pixels(data.read_isic2018(isic_folder)[:2])
    assert pixels.dtype == torch.uint8
    assert (pixels[1].numpy() == preprocess(jpeg(1))).all()


def test_bad_data_is_named(isic_folder):
    examples = data.read_isic2018(isic_folder)
    examples[5].path.write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"ISIC_0000005.jpg: .*not an image"):
        data.load_pixels(examples)
    examples[6].path.unlink()
    with pytest.raises(ValueError, match="lacks 1 of 150 images, e.g. ISIC_0000006.jpg"):
        data.read_isic2018(isic_folder)
    (isic_folder / "HAM10000_metadata.csv").unlink()
    with pytest.raises(ValueError, match="no lesion table"):
        data.read_isic2018(isic_folder)
    result = click.testing.CliRunner().invoke(
        main, ["fit", "--data", str(isic_folder), "--start", __file__, "--out", str(isic_folder / "out")]
    )
    assert result.exit_code == 1
    assert "no lesion table" in result.output


def test_held_out_images_are_picked_by_name(isic_folder):
    """Whatever else a user's copy of the data holds."""
    examples = data.read_isic2018(isic_folder)
    picked = data.pick(examples, ["ISIC_0000003", "ISIC_0000001"])
    assert [e.path.stem for e in picked] == ["ISIC_0000003", "ISIC_0000001"]
    with pytest.raises(ValueError, match="lacks 1 of 2 images, e.g. ISIC_9999999"):
        data.pick(examples, ["ISIC_0000003", "ISIC_9999999"])


def test_lesion_with_two_conditions_is_refused(isic_folder):
    examples = data.read_isic2018(isic_folder)
    twisted = [*examples, data.Example(examples[0].path, examples[0].lesion, 1 - examples[0].condition)]
    with pytest.raises(ValueError, match="two conditions"):
        for seed in range(20):
            data.split_by_lesion(twisted, seed=seed)


def test_metrics_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1])
    predicted = np.array([0, 0, 0, 1, 1, 0])
    assert balanced_accuracy(predicted, labels) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert rate(np.array([True] * 19 + [False]))["value"] == 0.95
    low, high = rate(np.array([True] * 19 + [False]))["interval_95"]
    assert (low, high) == (pytest.approx(0.7513, abs=1e-3), pytest.approx(0.9987, abs=1e-3))
    assert rate(np.array([], bool))["value"] is None
    scores = np.array([0.9, 0.8, 0.3, 0.7, 0.2, 0.1])
    truth = np.array([True, True, True, False, False, False])
    assert threshold_for_sensitivity(scores, truth, 0.6) == 0.8
    assert specificity_at(scores, truth, 0.6) == 1.0
    assert specificity_at(scores, truth, 1.0) == pytest.approx(2 / 3)


def test_calibration_error_by_hand():
    probabilities = np.zeros((4, 7))
    probabilities[:, 0], probabilities[:, 1] = 0.8, 0.2
    assert calibration_error(probabilities, np.array([0, 0, 0, 1])) == pytest.approx(0.05)


def test_report_names_sensitivity_only_beside_specificity():
    rng = np.random.default_rng(0)
    labels = np.arange(140) % 7
    report = measure(rng.dirichlet(np.ones(7), 140), labels)
    assert set(report["melanoma"]) == {"sensitivity", "specificity"}
    low, high = report["balanced_accuracy"]["interval_95"]
    assert low < report["balanced_accuracy"]["value"] < high


def test_temperature_is_recovered():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (4000, 7))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(7, p=p) for p in probabilities])
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=0.1)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, abs=0.3)


def test_calibration_meets_its_targets_where_it_was_made():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 7, 700)
    logits = rng.normal(0, 1, (700, 7))
    logits[np.arange(700), labels] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probabilities[:5, 6] = 0  # as fp32 underflows
    calibration = calibrate(probabilities, labels, name="drawn")
    achieved = calibration.report["achieved"]
    assert achieved["review"]["melanoma"]["sensitivity"]["value"] >= 0.95
    assert achieved["review"]["malignancy"]["sensitivity"]["value"] >= 0.95
    assert achieved["urgent"]["malignancy"]["specificity"]["value"] >= 0.95
    assert 0 < calibration.review < calibration.urgent < 1


def test_sampling_follows_the_power():
    labels = torch.tensor([0] * 90 + [1] * 10)
    for power, share in ((1.0, 0.9), (0.0, 1 / 7), (0.5, 3 / 4)):
        weights, prior = _sampling(labels, power)
        drawn = weights[labels == 0].sum() / weights.sum()
        if power:
            assert prior[0] == pytest.approx(share)
            assert drawn == pytest.approx(share)
        else:  # conditions without an image are never drawn
            assert drawn == pytest.approx(0.5)


@pytest.fixture(scope="module")
def tiny_task(tmp_path_factory):
    """Two conditions that differ by colour, so that a few steps must learn them."""
    folder = tmp_path_factory.mktemp("mini")
    architecture.write_mini(folder)
    labels = torch.tensor([0, 1] * 6)
    pixels = torch.zeros(12, 224, 224, 3, dtype=torch.uint8)
    pixels[labels == 0, :, :, 0] = 220
    pixels[labels == 1, :, :, 2] = 220
    return folder, TrainingSet(pixels, labels)


NORMALISE = Normalise([0.5] * 3, [0.5] * 3)
PHASE = Phase("tiny", epochs=4, learning_rate=5e-4, sampling=1.0, batch_size=4, warmup=0.0)


def train(folder, task, checkpoints, phase=PHASE, **lora):
    torch.manual_seed(0)
    model = build_model(folder, weights=False)
    if lora:
        add_lora(model, **lora)
    fit(model, load_tokenizer(folder), task, NORMALISE, phase, seed=0, checkpoints=checkpoints)
    return model


@torch.inference_mode()
def accuracy(model, folder, task):
    """Share of images nearer to their own condition's text than to the other's."""
    prompts = {c.code: c.prompts for c in CONDITIONS[:2]}
    text = encode_conditions(model, load_tokenizer(folder), prompts)
    scores = model.encode_image(NORMALISE(task.pixels), normalize=True) @ text.T
    return (scores.argmax(dim=1) == task.labels).float().mean()


def test_training_learns_and_resumes(tiny_task, tmp_path):
    """Stopped after an epoch and called again, it ends with the same weights."""
    folder, task = tiny_task
    straight = train(folder, task, tmp_path / "straight")
    assert accuracy(straight, folder, task) == 1

    class Stop(Exception):
        pass

    def stop_in_second_epoch(module, inputs):
        stop_in_second_epoch.calls += 1
        if stop_in_second_epoch.calls > 3 + 1:
            raise Stop

    stop_in_second_epoch.calls = 0
    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda m, i: stop_in_second_epoch(m, i) if type(m).__name__ == "TimmModel" else None
    )
    with pytest.raises(Stop):
        train(folder, task, tmp_path / "resumed")
    handle.remove()
    resumed = train(folder, task, tmp_path / "resumed")
    for (name, a), b in zip(straight.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_too_few_images_are_refused(tiny_task, tmp_path):
    """Rather than sealing a model that no step has trained."""
    folder, task = tiny_task
    with pytest.raises(ValueError, match="12 training images do not fill one batch of 13"):
        train(folder, task, tmp_path, Phase("tiny", 1, 1e-4, 1.0, batch_size=13))


def test_a_checkpoint_of_another_run_is_refused(tiny_task, tmp_path):
    folder, task = tiny_task
    train(folder, task, tmp_path, Phase("tiny", 1, 1e-4, 1.0, batch_size=4))
    with pytest.raises(ValueError, match="belongs to another run"):
        train(folder, task, tmp_path, Phase("tiny", 1, 2e-4, 1.0, batch_size=4))


def test_make_mini_from_data_to_bundle(isic_folder, tmp_path):
    """The whole recipe, short: interrupted, continued, sealed, exported facts in place."""
    torch.manual_seed(0)
    architecture.write_mini(tmp_path / "start")
    trunk = build_model(tmp_path / "start", weights=False).visual.trunk.state_dict()
    save_file(trunk, str(tmp_path / "vit.safetensors"))
    phases = (Phase("full", 1, 1e-4, 0.5, batch_size=16), Phase("lora", 1, 1e-4, 0.0, batch_size=16))
    out = tmp_path / "my-bundle"
    parts = data.split_by_lesion(data.read_isic2018(isic_folder), seed=0)
    checkpoints = tmp_path / "my-bundle.checkpoints"
    train_weights(parts, tmp_path / "vit.safetensors", out, checkpoints, seed=0, phases=phases)
    vocabulary = (out / "text" / "vocab.txt").read_bytes()
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle.open(out)  # nothing unmeasured can be exported
    bundle = make_mini(isic_folder, tmp_path / "vit.safetensors", out, phases=phases)
    assert (out / "text" / "vocab.txt").read_bytes() == vocabulary
    assert not checkpoints.exists()
    assert bundle.name == "my-bundle"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["images"] == len(parts.test) == metrics["split"]["test"]
    held_out = json.loads((out / "split.json").read_text())["test"]
    assert set(held_out) == {e.path.stem for e in parts.test}
    assert (
        load_file(str(out / "open_clip_model.safetensors"))["visual.head.proj.weight"].dtype == torch.float16
    )
    result = click.testing.CliRunner().invoke(
        main, ["evaluate", str(out), "--data", str(isic_folder), "--json"]
    )
    assert result.exit_code == 0
    again = json.loads(result.stdout)
    assert again["balanced_accuracy"] == metrics["balanced_accuracy"]
    assert again["triage"] == metrics["triage"]


def test_lora_training_moves_only_the_adapters(tiny_task, tmp_path):
    folder, task = tiny_task
    torch.manual_seed(0)
    before = build_model(folder, weights=False).state_dict()
    model = train(folder, task, tmp_path, Phase("lora", 1, 1e-2, 1.0, batch_size=4), r=4, alpha=8)
    after = {name.replace(".base_layer", ""): t for name, t in model.state_dict().items()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(t.abs().max() > 0 for name, t in after.items() if "lora_B" in name)
