"""New words for an image tower that stays as it is, and going on from a bundle without a leak."""

import json
import shutil

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from derma_semantics.evaluation.truth import Case
from derma_training.bundle import (
    WEIGHTS,
    Calibration,
    seal,
    write_calibration,
    write_json,
    write_prompts,
)
from derma_training.bundle.split import bundle_parts
from derma_training.data import Parts, read
from derma_training.learning.batches import TrainingSet
from derma_training.learning.config import Phase, load
from derma_training.learning.fit import Run
from derma_training.learning.recipe import PROMPTS, Place, make_bundle, split, train_weights
from derma_training.learning.start import BASES, check_unseen
from derma_training.learning.words import fit_words
from derma_training.network import architecture
from derma_training.network.classifier import Normalise
from derma_training.network.lora import add_lora
from derma_training.network.model import (
    build_model,
    encode_conditions,
    load_merged,
    load_tokenizer,
    save_weights,
)

WORDS = """
name = "small"
base = "mini"
precision = "no"
split = { from_start = true }

[[phases]]
name = "words"
method = "words"
epochs = 20
batch_size = 14
learning_rate = 1e-2
text_noise = 0.5
"""
FULL = """
name = "small"
base = "mini"
precision = "no"

[[phases]]
name = "full"
epochs = 1
batch_size = 14
learning_rate = 1e-4
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory, write_isic):
    """Six lesions of each condition in the official layout."""
    cases = [Case(f"DRAWN_{i:03d}", i % 7, f"L{i}") for i in range(42)]
    return write_isic(tmp_path_factory.mktemp("isic"), cases)


@pytest.fixture(scope="module")
def old(tmp_path_factory, photos):
    """A bundle with an adapter that says what trained it: the first two of each condition were held out."""
    folder = tmp_path_factory.mktemp("old")
    architecture.write_mini(folder)
    torch.manual_seed(0)
    model = build_model(folder, weights=False)
    save_weights(model, folder)
    adapted = add_lora(model, r=2, alpha=4)
    for name, tensor in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(tensor, std=0.05)
    adapted.save_pretrained(str(folder / "adapter"))
    (folder / "adapter" / "README.md").unlink()
    write_prompts(folder)
    write_calibration(folder, Calibration())
    names = [example.name for example in read(photos)]
    parts = {"calibration": names[:7], "test": names[7:14], "train": names[14:]}
    write_json(folder / "split.json", parts)
    return seal(folder, name="old", base_model=BASES["mini"], git_commit="0123456789abcdef")


@pytest.fixture
def words(tmp_path):
    (tmp_path / "words.toml").write_text(WORDS)
    return load(tmp_path / "words.toml")


@pytest.fixture
def full(tmp_path):
    (tmp_path / "full.toml").write_text(FULL)
    return tmp_path / "full.toml"


def test_only_the_projection_of_texts_and_the_scale_train(old, words, photos, tmp_path):
    """The bundle's image tower, adapter and parts are the start's; its texts are not."""
    bundle = make_bundle(words, read(photos), Place(old.path, tmp_path / "new"), say=lambda line: None)
    before, after = load_file(str(old.path / WEIGHTS)), load_file(str(bundle.path / WEIGHTS))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"text.proj.weight", "logit_scale"}
    adapters = [path / "adapter" / "adapter_model.safetensors" for path in (old.path, bundle.path)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()
    assert json.loads((bundle.path / "split.json").read_text()) == json.loads(
        (old.path / "split.json").read_text()
    )
    assert bundle.manifest["start"] == {"name": "old", "digest": old.digest, "git_commit": "0123456789abcdef"}
    card = (bundle.path / "MODEL_CARD.md").read_text()
    assert f"the image tower of bundle old ({old.digest[:12]}, commit 0123456)" in card
    assert "trained here: the projection of texts (words, 20 epochs)" in card
    assert "28 images for training" in card and "(the start's parts)" in card


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_texts_learn_what_the_tower_tells_apart(old, noise):
    """Pictures of one colour a condition, which even a random tower embeds apart."""
    model = load_merged(old)
    colours = torch.randint(0, 256, (7, 1, 1, 3), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(7).repeat(4)
    pixels = colours[labels].expand(-1, 224, 224, 3).to(torch.uint8)
    data = TrainingSet(pixels, labels)
    visual = {name: tensor.clone() for name, tensor in model.visual.state_dict().items()}
    phase = Phase(
        name="words", method="words", epochs=150, batch_size=28, learning_rate=1e-2, text_noise=noise
    )
    run = Run(Accelerator(cpu=True), old.path.parent / f"run{noise}", seed=0)
    normalise, tokenizer = Normalise([0.5] * 3, [0.5] * 3), load_tokenizer(old.path)
    figures = fit_words(model, tokenizer, PROMPTS, normalise, data, data, phase, run)
    assert figures["balanced_accuracy"] == 1.0
    assert all(torch.equal(visual[name], tensor) for name, tensor in model.visual.state_dict().items())
    assert encode_conditions(model, tokenizer, PROMPTS).shape == (7, 192)


def test_a_start_that_has_seen_what_is_held_out_is_refused(old, full, photos, tmp_path):
    """Whether it says what trained it or not, and by lesion."""
    config = load(full, ["split.seed=1"])
    parts = split(read(photos), config, old.path)
    with pytest.raises(ValueError, match=r"of the part (validation|calibration|test), e\.g\. DRAWN_\d+, may"):
        train_weights(config, parts, Place(old.path, tmp_path / "new"), say=lambda line: None)
    assert not (tmp_path / "new").exists()
    examples = read(photos)
    known, unseen = examples[20], examples[0]
    check_unseen(old.path, Parts(train=[known], test=[unseen]))
    with pytest.raises(ValueError, match="1 images of the part test, e.g. DRAWN_020"):
        check_unseen(old.path, Parts(test=[known]))
    twin = type(known)("OTHER_PHOTO", known.lesion, known.condition, known.source, known.read)
    with pytest.raises(ValueError, match="1 images of the part test, e.g. OTHER_PHOTO"):
        check_unseen(old.path, Parts(train=[known], test=[twin]))
    stranger = type(known)("CLINIC_1", "elsewhere", known.condition, "clinic", known.read)
    check_unseen(old.path, Parts(train=[known], test=[stranger]))
    silent = tmp_path / "silent"
    shutil.copytree(old.path, silent)
    held_out = json.loads((silent / "split.json").read_text())
    del held_out["train"]
    write_json(silent / "split.json", held_out)
    seal(
        silent,
        **{key: value for key, value in old.manifest.items() if key not in ("files", "schema_version")},
    )
    check_unseen(silent, Parts(train=[known], test=[unseen]))
    with pytest.raises(ValueError, match="e.g. CLINIC_1, may have trained"):
        check_unseen(silent, Parts(train=[known], test=[stranger]))


def test_training_goes_on_from_a_bundle(old, full, photos, tmp_path):
    """All of it: the adapter becomes part of the tower, and what trained the start counts as seen."""
    config = load(full, ["split.from_start=true", "phases.0.learning_rate=1e-12"])
    few = [e for e in read(photos) if e.name not in ("DRAWN_040", "DRAWN_041")]
    bundle = make_bundle(config, few, Place(old.path, tmp_path / "new"), say=lambda line: None)
    assert bundle.adapter is None
    was, now = load_merged(old), load_merged(bundle)
    picture = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        same = torch.cosine_similarity(was.encode_image(picture), now.encode_image(picture))
    assert same.item() > 0.9999
    trained = json.loads((bundle.path / "split.json").read_text())["train"]
    assert {"DRAWN_020", "DRAWN_040", "DRAWN_041"} <= set(trained)
    assert len(bundle_parts(bundle, few).train) == 26


def test_a_bundle_goes_on_only_with_its_own_architecture(old, words, photos, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(old.path, other)
    seal(other, name="other", base_model="microsoft/BiomedCLIP")
    for start, config in ((other, words), (old.path, words.model_copy(update={"base": "biomedclip"}))):
        with pytest.raises(ValueError, match="is a bundle of .*, the run's base is"):
            make_bundle(config, read(photos), Place(start, tmp_path / "new"), say=lambda line: None)
    assert not list(tmp_path.glob("new*"))


def test_parts_of_a_start_need_a_bundle(words, photos, tmp_path):
    with pytest.raises(ValueError, match=r"split.from_start needs a bundle to start from, and .*weights"):
        split(read(photos), words, tmp_path / "weights.safetensors")
