"""Building, LoRA and checkpoint formats, on the small architecture with random weights."""

import json
import re
import shutil

import click.testing
import pytest
import torch

from derma_training import architecture
from derma_training.bundle import BundleError
from derma_training.cli import main
from derma_training.model import (
    TEXT_TARGETS,
    VISION_TARGETS,
    add_lora,
    build_model,
    count_parameters,
    load_checkpoint,
    load_tokenizer,
    merge_adapter,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("architecture")
    architecture.write_mini(folder)
    return folder


@pytest.fixture
def model(folder):
    torch.manual_seed(0)
    return build_model(folder, weights=False)


@pytest.fixture
def images():
    return torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def with_random_lora(model, **options):
    """LoRA starts at B = 0; give it something to do."""
    wrapped = add_lora(model, **options)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return wrapped.eval()


def embed(model, images):
    with torch.inference_mode():
        return model.encode_image(images, normalize=True)


def test_builds_from_any_working_directory(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert build_model(folder, weights=False).text.config.hidden_size == architecture.TEXT_WIDTH


def test_lora_adapts_exactly_the_blocks(model):
    wrapped = add_lora(model)
    adapted = {n.split(".lora_A")[0] for n, _ in wrapped.named_modules() if n.endswith(".lora_A")}
    adapted = {name.removeprefix("base_model.model.") for name in adapted}
    assert len(adapted) == 12 * 4
    assert all(re.fullmatch(VISION_TARGETS, name) for name in adapted)
    assert not any("patch_embed" in name or "head" in name for name in adapted)


def test_lora_on_text_as_well(model):
    wrapped = add_lora(model, text=True)
    adapted = {
        n.removeprefix("base_model.model.").split(".lora_A")[0]
        for n, _ in wrapped.named_modules()
        if n.endswith(".lora_A")
    }
    text = {name for name in adapted if re.fullmatch(TEXT_TARGETS, name)}
    assert len(text) == 2 * 6
    assert len(adapted) == 48 + 12


def test_parameter_count_is_the_formula(model):
    whole = count_parameters(model).total
    count = count_parameters(add_lora(model, r=32))
    assert count.trainable == 12 * 32 * ((192 + 576) + (192 + 192) + 2 * (192 + 768))
    assert count.total == whole + count.trainable
    assert "%" in str(count)


def test_adapter_round_trip(model, folder, images, tmp_path):
    base = {k: v.clone() for k, v in model.state_dict().items()}
    wrapped = with_random_lora(model)
    expected = embed(model, images)
    wrapped.save_pretrained(str(tmp_path))
    fresh = build_model(folder, weights=False)
    fresh.load_state_dict(base)
    before = embed(fresh, images)
    merged = merge_adapter(fresh, tmp_path)
    assert (embed(merged, images) - expected).abs().max() < 1e-5
    assert (before - expected).abs().max() > 1e-3


@pytest.mark.parametrize("wrap", [None, "model_state_dict", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoint_formats(model, folder, images, tmp_path, wrap, prefix):
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "model.pt")
    loaded, report = load_checkpoint(build_model(folder, weights=False), tmp_path / "model.pt")
    assert (report.missing, report.unexpected) == ((), ())
    assert torch.equal(embed(loaded, images), embed(model, images))


@pytest.mark.parametrize("default", ["", ".default"])
def test_checkpoint_with_lora_is_merged(model, folder, images, tmp_path, default):
    wrapped = with_random_lora(model, r=8, alpha=16)
    expected = embed(model, images)
    state = {name.replace(".default", default): t for name, t in wrapped.state_dict().items()}
    assert any(name.startswith("base_model.model.") for name in state)
    torch.save({"model_state_dict": state}, tmp_path / "model.pt")
    loaded, report = load_checkpoint(build_model(folder, weights=False), tmp_path / "model.pt")
    assert (report.missing, report.unexpected) == ((), ())
    assert (embed(loaded, images) - expected).abs().max() < 1e-5
    assert not any("lora" in name for name in loaded.state_dict())


def test_checkpoint_reports_what_does_not_fit(model, folder, tmp_path):
    state = model.state_dict()
    del state["visual.trunk.norm.bias"]
    state["visual.trunk.blocks.99.attn.qkv.lora_A.weight"] = torch.zeros(4, 192)
    state["teacher.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "model.pt")
    _, report = load_checkpoint(build_model(folder, weights=False), tmp_path / "model.pt")
    assert report.missing == ("visual.trunk.norm.bias",)
    assert set(report.unexpected) == {"teacher.weight", "visual.trunk.blocks.99.attn.qkv.lora_A.weight"}


def test_half_a_lora_pair_is_reported_and_not_merged(model, folder, images, tmp_path):
    expected = embed(model, images)
    state = dict(model.state_dict())
    state["visual.trunk.blocks.0.attn.qkv.lora_A.weight"] = torch.ones(4, 192)
    torch.save(state, tmp_path / "model.pt")
    loaded, report = load_checkpoint(build_model(folder, weights=False), tmp_path / "model.pt")
    assert report.missing == ("visual.trunk.blocks.0.attn.qkv.lora_B.weight",)
    assert torch.equal(embed(loaded, images), expected)


def test_a_pt_serves_as_a_folder_s_weights(model, folder, images, tmp_path):
    whole = shutil.copytree(folder, tmp_path / "whole")
    torch.save({"state_dict": model.state_dict()}, whole / "model.pt")
    assert torch.equal(embed(build_model(whole), images), embed(model, images))
    state = model.state_dict()
    del state["logit_scale"]
    torch.save(state, whole / "model.pt")
    with pytest.raises(BundleError, match="lacks 1 tensors, e.g. logit_scale"):
        build_model(whole)


def test_info_reports_a_checkpoint(model, folder, tmp_path):
    torch.save({**model.state_dict(), "teacher": torch.zeros(1)}, tmp_path / "model.pt")
    command = ["info", str(folder), "--checkpoint", str(tmp_path / "model.pt")]
    result = click.testing.CliRunner().invoke(main, command)
    assert result.exit_code == 0
    assert "0 missing, 1 unexpected" in result.output
    assert "unexpected teacher" in result.output
    assert "1,179,648 of" in result.output


def test_checkpoint_never_runs_code(model, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"state_dict": Bomb()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="not a checkpoint of plain tensors"):
        load_checkpoint(model, tmp_path / "evil.pt")
    assert not (tmp_path / "owned").exists()


def test_checkpoint_without_state_dict(model, tmp_path):
    torch.save({"epoch": 3}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="no state dict"):
        load_checkpoint(model, tmp_path / "model.pt")


def test_tokenizer_knows_every_word(folder):
    tokenizer = load_tokenizer(folder)
    ids = tokenizer(["melanoma", "zebra, quixotic 42!"])
    vocabulary = (folder / "text" / "vocab.txt").read_text().splitlines()
    assert ids.shape == (2, architecture.CONTEXT_LENGTH)
    words = [[vocabulary[i] for i in row if i] for row in ids.tolist()]
    assert all(row[0] == "[CLS]" and row[-1] == "[SEP]" for row in words)
    assert not any("[UNK]" in row for row in words)
    assert json.loads((folder / "text" / "config.json").read_text())["vocab_size"] == len(vocabulary)


def test_folders_that_are_not_models(tmp_path, folder):
    with pytest.raises(BundleError, match="open_clip_config.json"):
        build_model(tmp_path)
    with pytest.raises(BundleError, match="no weights"):
        build_model(folder)
    (tmp_path / "open_clip_config.json").write_bytes((folder / "open_clip_config.json").read_bytes())
    with pytest.raises(BundleError, match="text/config.json"):
        build_model(tmp_path, weights=False)
