"""The full BiomedCLIP, 195.9 M parameters, built offline from its configuration."""

import shutil

import pytest
import torch

from derma_semantics.domain.contract import RANDOM_WEIGHTS
from derma_training.bundle import BundleError
from derma_training.network.checkpoint import load_checkpoint
from derma_training.network.lora import add_lora
from derma_training.network.model import build_model, count_parameters, load_tokenizer
from derma_training.network.random_weights import biomedclip


@pytest.fixture(scope="module")
def model(biomedclip_config):
    torch.manual_seed(0)
    return build_model(biomedclip_config, weights=False)


def test_it_is_the_whole_model(model):
    assert count_parameters(model).total == 195_902_721
    assert sum(p.numel() for p in model.visual.parameters()) == 86_191_872


def test_tokenizer_is_its_own(biomedclip_config):
    tokenizer = load_tokenizer(biomedclip_config)
    ids = tokenizer(["melanoma"])
    assert ids.shape == (1, 256)
    assert ids[0, 0] == 2  # [CLS] of BiomedBERT's vocabulary


def test_hub_layout_and_lora(model, biomedclip_config, tmp_path):
    """Weights as the hub distributes them load; LoRA trains 2.4 % of the whole."""
    hub = shutil.copytree(biomedclip_config, tmp_path / "hub", copy_function=shutil.copyfile)
    torch.save(model.state_dict(), hub / "open_clip_pytorch_model.bin")
    loaded = build_model(hub)
    (hub / "open_clip_pytorch_model.bin").unlink()
    assert torch.equal(loaded.visual.head.proj.weight, model.visual.head.proj.weight)
    count = count_parameters(add_lora(loaded))
    assert count.trainable == 4_718_592
    assert 100 * count.trainable / count.total == pytest.approx(2.35, abs=0.01)


def test_old_checkpoints_position_ids_are_harmless(model, tmp_path):
    state = dict(model.state_dict())
    state["text.transformer.embeddings.position_ids"] = torch.arange(512)[None]
    torch.save({"state_dict": state}, tmp_path / "model.pt")
    _, report = load_checkpoint(model, tmp_path / "model.pt")
    (tmp_path / "model.pt").unlink()
    assert report.missing == ()
    assert report.unexpected == ()


def test_random_weights_say_so_and_are_the_whole_model(tmp_path):
    """Our own configuration, from no file of the hub's."""
    bundle = biomedclip(tmp_path / "random", seed=3)
    assert RANDOM_WEIGHTS in bundle.name
    assert bundle.random_weights
    model = build_model(bundle.path)
    assert count_parameters(model).total == 195_902_721
    assert len(model.visual.trunk.blocks) == 12
    texts = [texts[0] for texts in bundle.prompts.values()]
    assert len({tuple(row.tolist()) for row in load_tokenizer(bundle.path)(texts)}) == len(texts)
    assert biomedclip(tmp_path / "random", seed=3).digest == bundle.digest
    with pytest.raises(BundleError, match="not random weights of seed 4"):
        biomedclip(tmp_path / "random", seed=4)
