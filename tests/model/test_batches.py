"""Which images a step draws, how often, and changed in which way."""

from itertools import islice

import pytest
import torch
from torchvision.transforms.v2 import functional

from derma_semantics.domain.conditions import CODES
from derma_training.learning.augmentation import Changes, draw
from derma_training.learning.batches import Batches, TrainingSet, sampling
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
    """From the middle, or by another process: the same images, changed alike."""
    settings = phase(augmentation=Augmentation(), balance=Balance(sampling=0.5))
    stream = Batches(data, settings, seed=4)
    batches = list(islice(stream.from_step(0), 4))
    later = next(iter(Batches(data, settings, seed=4).from_step(3)))
    assert torch.equal(batches[3][0], later[0])
    assert torch.equal(batches[3][1], later[1])
    assert not torch.equal(batches[2][0], later[0])
    other = next(iter(Batches(data, settings, seed=5).from_step(3)))
    assert not torch.equal(other[0], later[0])


def test_processes_and_pieces_cut_one_batch(data):
    settings = {"augmentation": Augmentation(crop=0.5, rotation=180, jitter=0.2, gain=0.1)}
    whole = next(iter(Batches(data, phase(**settings), seed=0).from_step(7)))
    pieces = {}
    for rank in (0, 1):
        stream = Batches(data, phase(accumulate=2, **settings), seed=0, rank=rank, world=2)
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


def changed(pixels, seed=0, **settings):
    plain = Augmentation(**{"crop": 1, "flips": False, "jitter": 0, **settings})
    rare = torch.zeros(len(pixels), dtype=torch.bool)
    return draw(plain, plain, rare, torch.Generator().manual_seed(seed)).apply(pixels)


@pytest.fixture(scope="module")
def picture():
    """Twelve times the same picture, smooth as photographs are, with neither symmetry nor plain colour."""
    down, across = torch.meshgrid(torch.arange(224.0), torch.arange(224.0), indexing="ij")
    image = torch.stack([40 + 0.6 * down, 200 - 0.5 * across, 60 + 0.3 * (down + across)], dim=-1)
    return image.round().to(torch.uint8).expand(12, -1, -1, -1)


def test_nothing_changes_without_settings(picture):
    assert torch.equal(changed(picture), picture)


def test_flips_are_the_eight_symmetries_of_a_square(picture):
    """Every result is one of torch's own eight, and twelve draws hold more than three of them."""
    image = picture[0]
    eight = [image.rot90(k).flip(dims) for k in range(4) for dims in ([], [1])]
    found = set()
    for result in changed(picture, flips=True):
        distance = [float((result.float() - other.float()).abs().max()) for other in eight]
        assert min(distance) <= 1
        found.add(distance.index(min(distance)))
    assert len(found) > 3


def test_a_crop_keeps_at_least_its_share(picture):
    """On a ramp the range of values tells how much of each side is left."""
    sides = []
    for result in changed(picture, crop=0.25):
        left = [float(result[..., c].max()) - float(result[..., c].min()) for c in (0, 1)]
        sides.append((left[0] / (0.6 * 223), left[1] / (0.5 * 223)))
    areas = [down * across for down, across in sides]
    assert 0.24 < min(areas) < 0.6
    assert max(areas) > 0.6
    assert all(0.78 < down / across < 1.28 for down, across in sides)


def test_jitter_and_gain_stay_in_their_bounds():
    grey = torch.full((64, 8, 8, 3), 100, dtype=torch.uint8)
    light = changed(grey, gain=0.2)[:, 0, 0].float()
    assert light.min() >= 80
    assert light.max() <= 120
    assert (light.max(dim=1).values - light.min(dim=1).values).median() > 5  # channels change apart
    bright = changed(grey, jitter=0.3)[:, 0, 0].float()
    assert 69 <= bright.min() < 85
    assert 115 < bright.max() <= 131
    assert torch.equal(bright[:, 0], bright[:, 2])  # grey stays grey


@pytest.mark.parametrize("what", ["contrast", "saturation"])
def test_contrast_and_saturation_are_torchvision_s(picture, what):
    """On a coloured picture, weaker and stronger; to the level that rounding takes."""
    factors = torch.tensor([0.5, 0.8, 1.0, 1.3])
    ones, still = torch.ones(4), torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(4, -1, -1)
    given = {"contrast": ones, "saturation": ones, what: factors}
    results = Changes(still, torch.ones(4, 3), **given).apply(picture[:4])
    for factor, result in zip(factors.tolist(), results, strict=True):
        expected = getattr(functional, f"adjust_{what}")(picture[0].permute(2, 0, 1), factor)
        assert (result.permute(2, 0, 1).int() - expected.int()).abs().max() <= 1


def test_a_rotation_turns_by_its_angle(picture):
    """Inside the circle that stays in view, every result is torchvision's own turn by that angle."""
    plain = Augmentation(crop=1, flips=False, jitter=0, rotation=90)
    changes = draw(plain, plain, torch.zeros(12, dtype=torch.bool), torch.Generator().manual_seed(0))
    angles = torch.rad2deg(torch.atan2(changes.place[:, 1, 0], changes.place[:, 0, 0]))
    assert angles.abs().max() > 45
    centre = torch.arange(224) - 111.5
    inside = centre[:, None] ** 2 + centre[None, :] ** 2 < 100**2
    for angle, result in zip(angles.tolist(), changes.apply(picture), strict=True):
        image = picture[0].permute(2, 0, 1)
        expected = functional.rotate(image, angle, functional.InterpolationMode.BILINEAR).permute(1, 2, 0)
        assert (result.int() - expected.int()).abs()[inside].max() <= 2


def test_rotation_shows_no_black_corners():
    bright = torch.full((5, 224, 224, 3), 200, dtype=torch.uint8)
    assert changed(bright, rotation=45).min() >= 199
