"""The whole way from photographs to a sealed bundle, on drawn pictures and in two small epochs."""

import json

import click.testing
import pytest
import torch
from safetensors.torch import load_file, save_file

from derma_semantics.domain.conditions import CODES
from derma_semantics.evaluation.truth import Case
from derma_training.bundle import Bundle, BundleError
from derma_training.bundle.split import bundle_parts
from derma_training.cli import main
from derma_training.data import read
from derma_training.learning.config import load
from derma_training.learning.recipe import Place, make_bundle, split, train_weights
from derma_training.network import architecture
from derma_training.network.model import build_model
from derma_training.prompts.report import summary
from derma_training.prompts.wording import PARAPHRASES

CONFIGURATION = """
name = "small"
base = "mini"
precision = "no"

[[phases]]
name = "full"
epochs = 1
batch_size = 16
learning_rate = 1e-4
patience = 1
balance = { max_nevi = 4 }

[[phases]]
name = "lora"
method = "lora"
epochs = 1
batch_size = 16
learning_rate = 1e-4
lora = { r = 4, alpha = 8, text = true }
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory, write_isic):
    """Ten lesions of each condition in the official layout."""
    cases = [Case(f"DRAWN_{i:03d}", i % 7, f"L{i}") for i in range(70)]
    return write_isic(tmp_path_factory.mktemp("isic"), cases)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Stands in for timm's weights: same tensors, random values."""
    folder = tmp_path_factory.mktemp("start")
    architecture.write_mini(folder)
    torch.manual_seed(0)
    state = build_model(folder, weights=False).visual.trunk.state_dict()
    save_file({**state, "head.weight": torch.zeros(1000, 192)}, str(folder / "vit.safetensors"))
    return folder / "vit.safetensors"


@pytest.fixture(scope="module")
def configuration(tmp_path_factory):
    path = tmp_path_factory.mktemp("configuration") / "small.toml"
    path.write_text(CONFIGURATION)
    return path


def run(*arguments):
    return click.testing.CliRunner().invoke(main, list(map(str, arguments)))


def test_from_photographs_to_a_bundle(photos, start, configuration, tmp_path):
    """A trial first, then the bundle from the same checkpoints; evaluated again it says the same."""
    out = tmp_path / "own"
    command = ["fit", configuration, "--data", photos, "--start", start, "--out", out]
    trial = run(*command, "--trial")
    assert trial.exit_code == 0, trial.output
    assert "lora: on validation balanced accuracy" in trial.output
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle.open(out)  # nothing unmeasured can be exported
    steps = (tmp_path / "own.run" / "full.steps.csv").read_bytes()
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "own.run" / "full.steps.csv").read_bytes() == steps  # nothing was trained again
    assert not (tmp_path / "own.run" / "checkpoints").exists()
    bundle = Bundle.open(out)
    assert f"bundle small ({bundle.digest[:12]})" in result.output
    assert bundle.manifest["base_model"].startswith("timm/vit_tiny")
    assert load(out / "training.toml") == load(configuration)
    weights = load_file(str(out / "open_clip_model.safetensors"))
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert not any(name.startswith("text.transformer.") for name in weights)
    adapters = load_file(str(out / "adapter" / "adapter_model.safetensors"))
    assert any("text.transformer" in name for name in adapters)
    assert str(tmp_path) not in (out / "adapter" / "adapter_config.json").read_text()
    parts = split(read(photos), load(configuration), start)
    held_out = json.loads((out / "split.json").read_text())
    assert held_out == {name: sorted(e.name for e in part) for name, part in parts if name != "other"}
    again = bundle_parts(bundle, read(photos))
    assert [e.name for e in again.train] == [e.name for e in parts.train]
    metrics = json.loads((out / "metrics.json").read_text())
    counts = {"train": 42, "validation": 7, "calibration": 7, "test": 14, "other": 0}
    assert metrics["split"]["images"] == counts
    assert set(metrics["text"]) == {"wording", "head"}
    assert sorted(bundle.calibration.bias) == sorted(CODES)
    assert bundle.calibration.report["prevalence_from"] == "the bundle's training lesions"
    result = run("evaluate", out, "--data", photos, "--json")
    assert result.exit_code == 0, result.output
    measured = json.loads(result.stdout)
    assert measured["balanced_accuracy"] == metrics["balanced_accuracy"]
    assert measured["triage"] == metrics["triage"]
    result = run("prompts", out, "--data", photos, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == metrics["text"]
    assert f"{metrics['text']['wording']['mean']:.3f}" in summary(metrics["text"])


def test_a_fifth_of_other_collections_is_measured_apart(
    photos, start, configuration, jpeg, monkeypatch, tmp_path
):
    """And the bundle is used without them, where only what it is for is at hand."""
    others = tmp_path / "others"
    for number in range(10):
        folder = others / ("MEL" if number % 2 else "NV")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"other{number}.jpg").write_bytes(jpeg(100 + number))
    out = tmp_path / "own"
    given = ["fit", configuration, "--data", photos, "--start", start, "--out", out]
    result = run(*given, "--data", others, "--set", "split.target=ISIC 2018", "--set", "phases.0.patience=0")
    assert result.exit_code == 0, result.output
    metrics = json.loads((out / "metrics.json").read_text())
    counts = {"train": 50, "validation": 7, "calibration": 7, "test": 14, "other": 2}
    assert metrics["split"]["images"] == counts
    assert metrics["data"] == "ISIC 2018"
    # The eight of others that train count for nothing in RISK: they are of melanoma and nevus alone.
    assert Bundle.open(out).calibration.frequencies == pytest.approx([1 / 7] * 7)
    assert metrics["other"]["images"] == 2
    assert "and 2 images of 2 lesions did not" in (out / "MODEL_CARD.md").read_text()
    bundle = Bundle.open(out)
    assert bundle_parts(bundle, read(photos)).other == []
    assert len(bundle_parts(bundle, read(photos)).train) == 42
    result = run("evaluate", out, "--data", photos, "--data", others, "--part", "other", "--json")
    assert json.loads(result.stdout)["conditions"] == metrics["other"]["conditions"]
    result = run("evaluate", out, "--data", photos, "--part", "other")
    assert result.exit_code == 1
    assert "the data lacks 2 of 2 images" in result.output
    given = ["--data", photos, "--data", others, "--others", others / "NV", "--out", tmp_path / "alarms"]
    assert run("judge-quality", out, *given).exit_code == 0
    kinds = json.loads((tmp_path / "alarms" / "quality.json").read_text())["kinds"]
    numbers = {kind["kind"]: kind["noticed"]["n"] for kind in kinds}
    assert numbers["lesions, test part"] == 14
    assert numbers["lesions of other collections"] == 1
    assert numbers["NV"] == 2  # every second one
    assert {kind["kind"]: kind for kind in kinds}["uniform noise"]["noticed"]["value"] == 1
    choose = ["quality", out, "--data", photos, "--photographs", others / "NV"]
    assert "3 photographs choose no limits: at least 200" in run(*choose).output
    monkeypatch.setattr("derma_training.quality.fit.LEAST_PHOTOGRAPHS", 3)
    chosen = run(*choose)
    assert chosen.exit_code == 0, chosen.output
    assert "of the 1 images that chose these limits" in chosen.output
    assert f"of 2 others of {others / 'NV'}" in chosen.output
    assert Bundle.open(out).quality.report["limits_from"] == "photographs of the user's own"
    assert "| lesions of other collections | 1 |" in (tmp_path / "alarms" / "quality.md").read_text()


def test_other_settings_do_not_continue_a_run(photos, start, configuration, tmp_path):
    place, config = Place(start, tmp_path / "own"), load(configuration, ["phases.0.patience=0"])
    parts = split(read(photos), config, start)
    only_full = config.model_copy(update={"phases": config.phases[:1]})
    train_weights(only_full, parts, place, say=lambda line: None)
    changed = load(configuration, ["seed=1", "phases.0.patience=0"])
    with pytest.raises(ValueError, match=r"belongs to another run: its settings, data or starting weights"):
        make_bundle(changed, read(photos), place, say=lambda line: None)


def test_a_run_without_soup_does_not_continue_one_with(photos, start, configuration, tmp_path):
    place, config = Place(start, tmp_path / "own"), load(configuration, ["phases.0.patience=0"])
    soup = config.phases[0].model_copy(update={"soup": 2})
    parts, silent = split(read(photos), config, start), {"say": lambda line: None}
    train_weights(config.model_copy(update={"phases": (soup,)}), parts, place, **silent)
    with pytest.raises(ValueError, match=rf"{soup.name}-\d\.pt belongs to another run"):
        train_weights(config, parts, place, **silent)


def test_mistakes_end_in_one_line(photos, start, configuration, tmp_path):
    command = ["fit", configuration, "--data", photos, "--start", start, "--out", tmp_path / "own"]
    result = run(*command, "--set", "phases.0.epochs=none")
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "phases.0.epochs" in result.output
    result = run("fit", configuration, "--data", tmp_path, "--start", start, "--out", tmp_path / "own")
    assert result.exit_code == 1
    assert str(tmp_path) in result.output
    assert not (tmp_path / "own").exists()


def test_paraphrases_are_complete_and_were_never_trained_on():
    from derma_semantics.domain.conditions import CONDITIONS

    assert tuple(PARAPHRASES) == CODES
    assert len({len(texts) for texts in PARAPHRASES.values()}) == 1
    trained = {prompt.casefold() for condition in CONDITIONS for prompt in condition.prompts}
    asked = [text.casefold() for texts in PARAPHRASES.values() for text in texts]
    assert len(set(asked)) == len(asked)
    assert not trained & set(asked)
