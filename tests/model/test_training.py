"""Training runs that are small but real: they learn, resume after a kill, and share work."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from accelerate import Accelerator

from derma_semantics.domain.conditions import CONDITIONS
from derma_training.learning.augmentation import blend
from derma_training.learning.batches import TrainingSet
from derma_training.learning.checkpoint import restore, trainable
from derma_training.learning.config import Augmentation, Balance, Phase
from derma_training.learning.definitions import Definitions
from derma_training.learning.fit import Run, fit
from derma_training.learning.rates import cosine, parameter_groups
from derma_training.learning.teachers import Teachers
from derma_training.network import architecture
from derma_training.network.classifier import Normalise
from derma_training.network.lora import add_lora
from derma_training.network.model import build_model, encode_conditions, load_tokenizer

PROMPTS = {condition.code: condition.prompts for condition in CONDITIONS}
NORMALISE = Normalise([0.5] * 3, [0.5] * 3)
PLAIN = Augmentation(crop=1, flips=False, jitter=0)
PHASE = Phase(name="tiny", epochs=3, learning_rate=5e-4, batch_size=4, balance=Balance(sampling=1))


@pytest.fixture(scope="module")
def task():
    """Two conditions that differ by colour, so that a few steps must learn them."""
    labels = torch.tensor([0, 1] * 6)
    pixels = torch.zeros(12, 224, 224, 3, dtype=torch.uint8)
    pixels[labels == 0, :, :, 0] = 220
    pixels[labels == 1, :, :, 2] = 220
    return TrainingSet(pixels, labels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini")
    architecture.write_mini(folder)
    return folder


def shallow(folder):
    """Four of the twelve blocks, the ones that drop most: enough for two colours."""
    torch.manual_seed(0)
    model = build_model(folder, weights=False)
    model.visual.trunk.blocks = torch.nn.Sequential(*model.visual.trunk.blocks[-4:])
    model.text.transformer.requires_grad_(False)
    return model


@pytest.fixture
def model(folder):
    return shallow(folder)


def train(model, folder, task, place, phase=PHASE, validation=None, **run):
    run = Run(Accelerator(cpu=True, mixed_precision="no"), place, seed=0, **run)
    return fit(model, load_tokenizer(folder), PROMPTS, NORMALISE, task, validation, phase, run)


def curve(place, phase="tiny", kind="steps"):
    with (place / f"{phase}.{kind}.csv").open() as file:
        return list(csv.DictReader(file))


@torch.inference_mode()
def accuracy(model, folder, task):
    """Share of images nearer to their own condition's text than to the other's."""
    text = encode_conditions(model, load_tokenizer(folder), {c.code: c.prompts for c in CONDITIONS[:2]})
    scores = model.encode_image(NORMALISE(task.pixels), normalize=True) @ text.T
    return (scores.argmax(dim=1) == task.labels).float().mean()


@pytest.mark.parametrize("loss", ["definitions", "unicl", "clip"])
def test_every_loss_learns(model, folder, task, tmp_path, loss):
    before = model.text.proj.weight.clone()
    phase = PHASE.model_copy(update={"loss": loss, "epochs": 6})
    score = train(model, folder, task, tmp_path, phase, validation=task)
    assert accuracy(model, folder, task) == 1
    if loss == "definitions":  # the others never saw the texts of the five absent conditions
        assert score["balanced_accuracy"] == 1
    assert not torch.equal(before, model.text.proj.weight)
    rows = curve(tmp_path)
    assert [int(row["step"]) for row in rows] == list(range(18))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert list((tmp_path / "tensorboard").iterdir())


def test_options_run_together_and_leave_the_architecture_alone(model, folder, task, tmp_path):
    drop = model.visual.trunk.patch_drop
    phase = Phase(
        name="tiny",
        epochs=2,
        batch_size=4,
        accumulate=2,
        learning_rate=1e-4,
        patch_dropout=0.5,
        mixup=0.2,
        ema=0.9,
        teachers=1,
        wise=0.25,
        patience=5,
        balance=Balance(sampling=0.5, rare=100),
    )
    start = trainable(model)
    train(model, folder, task, tmp_path, phase, validation=task)
    assert model.visual.trunk.patch_drop is drop
    assert any(not torch.equal(start[name], value) for name, value in trainable(model).items())
    for network in ("tiny-teacher-1", "tiny"):
        assert [float(row["epoch"]) for row in curve(tmp_path, network, "epochs")] == [1, 2]


def test_mixup_gives_each_image_a_share_of_its_own():
    """Image i is i in every pixel and has label i, so that pixels tell what labels have to say."""
    labels = torch.arange(7)
    images = labels.float()[:, None, None, None].expand(7, 3, 4, 4)
    blended, target = blend(images, labels, 0.4, seed=3)
    assert torch.allclose(target.sum(dim=1), torch.ones(7))
    assert torch.allclose(blended, (target @ labels.float())[:, None, None, None].expand_as(blended))
    assert len(target.diagonal().unique()) > 3
    assert torch.equal(blend(images, labels, 0.4, seed=3)[1], target)
    assert not torch.equal(blend(images, labels, 0.4, seed=4)[1], target)


def test_wise_ft_returns_to_the_start_in_proportion(folder, task, tmp_path):
    """All of the way there at 1, which is not allowed, and so by half at 0.5."""
    results = {}
    for share in (0.0, 0.5):
        model = shallow(folder)
        start = trainable(model)
        phase = PHASE.model_copy(update={"wise": share, "epochs": 1})
        train(model, folder, task, tmp_path / str(share), phase)
        results[share] = trainable(model)
    for name, begun in start.items():
        assert torch.allclose(results[0.5][name], (results[0.0][name] + begun) / 2, atol=1e-6), name


def test_a_soup_is_the_mean_of_networks_with_one_start(model, folder, task, tmp_path):
    """Both orders are trained from the same weights, leave their own curves, and their mean stays."""
    soup = PHASE.model_copy(update={"soup": 2, "epochs": 1})
    start = trainable(model)
    train(model, folder, task, tmp_path / "soup", soup)
    alone = []
    for order in ("tiny-1", "tiny-2"):
        restore(model, start)
        train(model, folder, task, tmp_path / order, PHASE.model_copy(update={"name": order, "epochs": 1}))
        alone.append(trainable(model))
    assert curve(tmp_path / "soup", "tiny-1") == curve(tmp_path / "tiny-1", "tiny-1")
    assert curve(tmp_path / "soup", "tiny-2") != curve(tmp_path / "soup", "tiny-1")
    restore(model, start)
    train(model, folder, task, tmp_path / "soup", soup)  # everything is in its checkpoints
    for name, value in trainable(model).items():
        assert torch.allclose(value, (alone[0][name] + alone[1][name]) / 2, atol=1e-6), name
    assert len(curve(tmp_path / "soup", "tiny-1")) == 3


def test_teachers_train_alike_and_the_learner_comes_to_agree_with_them(model, folder, task, tmp_path):
    """Its loss holds nothing but their answers, and from them alone it learns the colours."""
    phase = PHASE.model_copy(update={"epochs": 12, "teachers": 2, "taught": 1.0})
    start = trainable(model)
    train(model, folder, task, tmp_path / "taught", phase)
    assert accuracy(model, folder, task) == 1
    assert [len(curve(tmp_path / "taught", name)) for name in phase.names] == [36, 36, 36]
    losses = [float(row["loss"]) for row in curve(tmp_path / "taught")]
    assert losses[-1] < losses[0] / 2
    taught = trainable(model)

    for name in ("tiny-teacher-1", "tiny-teacher-2"):
        restore(model, start)
        alone = PHASE.model_copy(update={"name": name, "epochs": 12})
        train(model, folder, task, tmp_path / name, alone)
        assert curve(tmp_path / "taught", name) == curve(tmp_path / name, name)

    restore(model, start)
    train(model, folder, task, tmp_path / "taught", phase)  # everything is in its checkpoints
    assert all(torch.equal(value, taught[name]) for name, value in trainable(model).items())
    with pytest.raises(ValueError, match=r"tiny\.pt belongs to another run"):
        train(model, folder, task, tmp_path / "taught", PHASE.model_copy(update={"epochs": 12}))


def test_teachers_answer_as_they_did_when_they_were_added(model, folder, task):
    texts, teachers = Definitions(model, load_tokenizer(folder), PROMPTS), Teachers()
    images = NORMALISE(task.pixels)
    with torch.inference_mode():
        image = model.encode_image(images, normalize=True)
        expected = model.logit_scale.exp() * image @ texts.conditions(model).T
    teachers.add(model, texts)
    torch.nn.init.zeros_(model.visual.head.proj.weight)
    assert torch.allclose(teachers(images), expected, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # the tower rounds, but not its similarities
        answers = teachers(images)
    assert answers.dtype == torch.float32
    assert not torch.equal(answers, answers.bfloat16().float())
    teachers.add(model, texts)  # sees nothing: all its logits are 0
    assert torch.allclose(teachers(images), expected / 2, atol=1e-5)


def test_early_stopping_goes_back_to_the_best(model, folder, task, tmp_path):
    """At once right and never better, it stops after `patience` epochs with the first weights."""
    phase = PHASE.model_copy(update={"epochs": 12, "patience": 2})
    score = train(model, folder, task, tmp_path, phase, validation=task)
    rows = curve(tmp_path, kind="epochs")
    scores = [float(row["balanced_accuracy"]) for row in rows]
    assert len(rows) < 12
    assert len(rows) == scores.index(max(scores)) + 1 + 2
    assert score["balanced_accuracy"] == max(scores)
    with pytest.raises(ValueError, match="phase tiny: patience needs a validation part"):
        train(model, folder, task, tmp_path, phase)


def test_averaged_weights_are_the_mean_that_was_asked_for(folder, task, tmp_path):
    """The first step's weights are copied, so two steps at decay 0.75 give 0.75 a + 0.25 b."""
    results = []
    for epochs, decay in ((1, 0.0), (2, 0.0), (2, 0.75)):  # one step each, at the peak rate
        model = shallow(folder)
        phase = PHASE.model_copy(update={"epochs": epochs, "batch_size": 12, "warmup": 0.0, "ema": decay})
        train(model, folder, task, tmp_path / f"{epochs} {decay}", phase)
        results.append(trainable(model))
    first, second, averaged = results
    name = "visual.trunk.blocks.3.mlp.fc1.weight"
    assert not torch.equal(first[name], second[name])
    assert torch.allclose(averaged[name], 0.75 * first[name] + 0.25 * second[name], atol=1e-7)


def test_lora_training_moves_only_the_adapters(model, folder, task, tmp_path):
    before = {name: t.clone() for name, t in model.state_dict().items()}
    add_lora(model, r=4, alpha=8)
    train(model, folder, task, tmp_path, PHASE.model_copy(update={"learning_rate": 1e-2, "epochs": 1}))
    after = {name.replace(".base_layer", ""): t for name, t in model.state_dict().items()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(t.abs().max() > 0 for name, t in after.items() if "lora_B" in name)


def test_rates_fall_from_block_to_block(folder):
    model = build_model(folder, weights=False)
    model.text.transformer.requires_grad_(False)
    phase = PHASE.model_copy(update={"layer_decay": 0.5, "learning_rate": 1.0, "fresh": 5.0})
    rate = {id(p): group["lr"] for group in parameter_groups(model, phase) for p in group["params"]}
    decay = {id(p): g["weight_decay"] for g in parameter_groups(model, phase) for p in g["params"]}
    trunk = model.visual.trunk
    assert rate[id(trunk.norm.weight)] == 1
    assert rate[id(trunk.blocks[11].mlp.fc1.weight)] == 0.5
    assert rate[id(trunk.blocks[0].mlp.fc1.weight)] == 0.5**12
    assert rate[id(trunk.pos_embed)] == rate[id(trunk.patch_embed.proj.weight)] == 0.5**13
    assert rate[id(model.visual.head.proj.weight)] == rate[id(model.text.proj.weight)] == 5
    assert decay[id(trunk.blocks[0].mlp.fc1.weight)] == phase.weight_decay
    assert decay[id(trunk.pos_embed)] == decay[id(trunk.norm.weight)] == decay[id(model.logit_scale)] == 0
    assert not any(id(p) in rate for p in model.text.transformer.parameters())


def test_the_schedule_warms_up_and_ends_at_nothing():
    factor = cosine(PHASE.model_copy(update={"warmup": 0.1}), 100)
    assert [factor(step) for step in (0, 9, 10)] == [0.1, 1.0, 1.0]
    assert factor(55) == pytest.approx(0.5)
    assert factor(100) == pytest.approx(0)


def test_too_few_images_are_refused(model, folder, task, tmp_path):
    """Rather than sealing a model that no step has trained."""
    with pytest.raises(ValueError, match="12 training images do not fill one batch of 13"):
        train(model, folder, task, tmp_path, PHASE.model_copy(update={"batch_size": 13}))


def test_a_checkpoint_of_another_run_is_refused(model, folder, task, tmp_path):
    train(model, folder, task, tmp_path, PHASE.model_copy(update={"epochs": 1}))
    with pytest.raises(ValueError, match="belongs to another run"):
        train(model, folder, task, tmp_path, PHASE.model_copy(update={"epochs": 2}))
    with pytest.raises(ValueError, match="a checkpoint of 1 tensors does not fit"):
        restore(model, {"strange": torch.zeros(1)})


SCRIPT = """
import sys, torch
from pathlib import Path
from accelerate import Accelerator
from derma_semantics.domain.conditions import CONDITIONS
from derma_training.learning.batches import TrainingSet
from derma_training.network.classifier import Normalise
from derma_training.learning.config import Phase
from derma_training.learning.fit import Run, fit
from derma_training.learning import fit as module
from derma_training.network.model import build_model, load_tokenizer

folder, place, phase, drop_path = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "drop"
module.CHECKPOINT_STEPS = 2
torch.set_num_threads(1)
torch.manual_seed(0)
model = build_model(folder, weights=False)
model.visual.trunk.blocks = torch.nn.Sequential(*model.visual.trunk.blocks[-4:])
model.text.transformer.requires_grad_(False)
if not drop_path:
    for block in model.visual.trunk.blocks:
        block.drop_path1 = block.drop_path2 = torch.nn.Identity()
draw = torch.Generator().manual_seed(1)
pixels = torch.randint(0, 255, (16, 224, 224, 3), dtype=torch.uint8, generator=draw)
data = TrainingSet(pixels, torch.arange(16) % 7)
prompts = {c.code: c.prompts for c in CONDITIONS}
run = Run(Accelerator(cpu=True, mixed_precision="no"), place, seed=3)
fit(model, load_tokenizer(folder), prompts, Normalise([0.5] * 3, [0.5] * 3), data, None,
    Phase.model_validate_json(phase), run)
if run.accelerator.is_main_process:
    torch.save(model.state_dict(), place / "final.pt")
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path / "script.py"


def command(script, folder, place, phase, drop="drop", before=()):
    return [
        sys.executable,
        *before,
        str(script),
        str(folder),
        str(place),
        phase.model_dump_json(),
        drop,
    ]


def rows_in(path):
    return path.read_text().count("\n") - 1 if path.is_file() else 0


def test_resumes_exactly_after_kill_9(script, folder, tmp_path):
    """In the network that is taught: curves and weights are those of a run that nobody killed."""
    phase = PHASE.model_copy(
        update={
            "epochs": 2,
            "teachers": 1,
            "patch_dropout": 0.25,
            "ema": 0.5,
            "mixup": 0.2,
            "learning_rate": 1e-4,
        }
    )
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    subprocess.run(command(script, folder, straight, phase), check=True, timeout=200)
    victim = subprocess.Popen(command(script, folder, killed, phase))
    deadline = time.monotonic() + 200
    while rows_in(killed / "tiny.steps.csv") < 5:  # between two checkpoints, in the second epoch
        assert victim.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait(10)
    assert not (killed / "final.pt").exists()
    subprocess.run(command(script, folder, killed, phase), check=True, timeout=200)
    for network in ("tiny-teacher-1", "tiny"):
        assert curve(killed, network) == curve(straight, network)
        assert len(curve(killed, network)) == 8
        assert curve(killed, network, "epochs") == curve(straight, network, "epochs")
    one, other = (torch.load(p / "final.pt", weights_only=True) for p in (straight, killed))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(("loss", "teachers"), [("definitions", 1), ("unicl", 0)])
def test_two_processes_compute_what_one_does(script, folder, tmp_path, loss, teachers):
    """torchrun with two CPU processes: the same losses to 1e-4. Dropout differs by process and is off."""
    phase = PHASE.model_copy(
        update={"loss": loss, "teachers": teachers, "epochs": 2, "batch_size": 8, "learning_rate": 1e-4}
    )
    one, two = tmp_path / "one", tmp_path / "two"
    subprocess.run(command(script, folder, one, phase, "none"), check=True, timeout=200)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    subprocess.run(command(script, folder, two, phase, "none", torchrun), check=True, timeout=250)
    losses = [
        [float(row["loss"]) for name in phase.names for row in curve(place, name)] for place in (one, two)
    ]
    assert len(losses[0]) == 4 * (teachers + 1)
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert losses[0][0] != pytest.approx(losses[0][-1], abs=1e-4)


def test_accumulated_batches_are_one_batch(folder, tmp_path, script):
    phase = PHASE.model_copy(update={"epochs": 2, "batch_size": 8, "learning_rate": 1e-4})
    for name, pieces in (("whole", 1), ("pieces", 4)):
        changed = phase.model_copy(update={"accumulate": pieces})
        subprocess.run(command(script, folder, tmp_path / name, changed, "none"), check=True, timeout=200)
    whole, pieces = ([float(r["loss"]) for r in curve(tmp_path / n)] for n in ("whole", "pieces"))
    assert pieces == pytest.approx(whole, abs=1e-4)
    assert len(pieces) == 4
