"""Which images a step draws, how often, and changed in which way."""

from itertools import islice

import pytest
import torch

from derma_semantics.conditions import CODES
from derma_training.learning.batches import Batches, TrainingSet, augmentation, sampling
from derma_training.learning.config import Augmentation, Balance, Phase

COUNTS = (40, 300, 20, 15, 50, 5, 6)


@pytest.fixture(scope="module")
def data():
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(COUNTS)])
    pixels = torch.zeros(len(labels), 224, 224, 3, dtype=torch.uint8)
    pixels[:, :112] = torch.arange(len(labels)).remainder(251).to(torch.uint8)[:, None, None, None]
    return TrainingSet(pixels, labels)


def phase(**changes):
    plain = Augmentation(crop=1, flips=False, jitter=0)
    settings = {"augmentation": plain, "rare_augmentation": plain, **changes}
    return Phase(name="p", epochs=1, learning_rate=1e-4, batch_size=32, **settings)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_conditions_are_drawn_as_often_as_the_power_says(data, power):
    """Counts of 64,000 draws against n**power, and the prior that logit adjustment uses."""
    weights, prior = sampling(data.labels, Balance(sampling=power))
    expected = torch.tensor(COUNTS, dtype=torch.double) ** power
    expected /= expected.sum()
    assert prior.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    rows = torch.multinomial(weights, 64_000, replacement=True, generator=torch.Generator().manual_seed(0))
    drawn = torch.bincount(data.labels[rows], minlength=7) / 64_000
    assert drawn.tolist() == pytest.approx(expected.tolist(), abs=0.008)


def test_a_condition_without_images_is_never_drawn(data):
    kept = data.labels != CODES.index("DF")
    weights, prior = sampling(data.labels[kept], Balance(sampling=0))
    assert prior[CODES.index("DF")] == pytest.approx(1e-6)
    assert prior[0] == pytest.approx(1 / 6)
    assert weights.min() > 0


def test_batches_depend_on_seed_and_step_alone(data):
    """From the middle, with workers, or by another process: the same images, changed alike."""
    settings = phase(augmentation=Augmentation(), balance=Balance(sampling=0.5))
    stream = Batches(data, settings, seed=4)
    batches = list(islice(stream.from_step(0), 4))
    later = next(iter(Batches(data, settings, seed=4, workers=1).from_step(3)))
    assert torch.equal(batches[3][0], later[0])
    assert torch.equal(batches[3][1], later[1])
    assert not torch.equal(batches[2][0], later[0])
    other = next(iter(Batches(data, settings, seed=5).from_step(3)))
    assert not torch.equal(other[0], later[0])


def test_processes_and_pieces_cut_one_batch(data):
    whole = next(iter(Batches(data, phase(), seed=0).from_step(7)))
    pieces = {}
    for rank in (0, 1):
        stream = Batches(data, phase(accumulate=2), seed=0, rank=rank, world=2)
        for turn, piece in enumerate(islice(stream.from_step(7), 2)):
            pieces[turn, rank] = piece
    order = [(0, 0), (0, 1), (1, 0), (1, 1)]
    for index in (0, 1):
        assert torch.equal(torch.cat([pieces[key][index] for key in order]), whole[index])


def test_impossible_batches_are_refused(data):
    with pytest.raises(ValueError, match="batch_size 32 is not divisible by 3 processes x accumulate 1"):
        Batches(data, phase(), seed=0, world=3)
    few = TrainingSet(data.pixels[:31], data.labels[:31])
    with pytest.raises(ValueError, match="31 training images do not fill one batch of 32"):
        Batches(few, phase(), seed=0)


def test_only_rare_conditions_are_changed_heavily(data):
    """The heavy setting here turns images grey-scale strength up; the common one changes nothing."""
    heavy = Augmentation(crop=1, flips=False, jitter=0.9)
    stream = Batches(data, phase(rare_augmentation=heavy, balance=Balance(sampling=0, rare=30)), seed=0)
    changed = {True: 0, False: 0}
    for pixels, labels in islice(stream.from_step(0), 4):
        for image, label in zip(pixels, labels, strict=True):
            value = int(image[60, 60, 0])
            untouched = (image[:112] == value).all() and (image[112:] == 0).all()
            original = bool(untouched) and any(
                value == row % 251 for row in (data.labels == label).nonzero().flatten().tolist()
            )
            rare = COUNTS[label] < 30
            changed[rare] += not original
    assert changed[False] == 0
    assert changed[True] > 20


def test_rotation_shows_no_black_corners():
    bright = torch.full((3, 224, 224), 200, dtype=torch.uint8)
    for seed in range(5):
        torch.manual_seed(seed)
        turned = augmentation(Augmentation(crop=1, flips=False, jitter=0, rotation=45))(bright)
        assert turned.min() >= 199
