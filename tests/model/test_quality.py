"""The input check: what it measures, how its limits are chosen, and that the graph says the same."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from derma_export.graph import OnnxClassifier, export_onnx
from derma_semantics.domain.quality import REASONS
from derma_semantics.imaging.preprocess import resize_and_crop
from derma_semantics.imaging.synthetic import draw
from derma_training.bundle import Bundle, BundleError, seal
from derma_training.bundle.limits import (
    CLOUDS,
    LIMITS,
    MEASURES,
    Cloud,
    Quality,
    read_quality,
    write_quality,
)
from derma_training.data import Example, Parts
from derma_training.network import pixels
from derma_training.network.check import QualityCheck
from derma_training.network.classifier import Classifier
from derma_training.quality import fit
from derma_training.quality.pictures import DAMAGES, KINDS, noise

CODES = [reason.code for reason in REASONS]


def as_pixels(*images):
    return torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images]))


@pytest.fixture(scope="module")
def lesions():
    return torch.from_numpy(np.stack([resize_and_crop(draw(seed).image) for seed in range(8)]))


@pytest.fixture(scope="module")
def classifier(mini):
    return Classifier.from_bundle(Bundle.open(mini))


def names(classifier, pictures):
    with torch.inference_mode():
        return [
            [code for code, one in zip(CODES, row, strict=True) if one]
            for row in classifier(pictures).quality
        ]


def spot(radius, skin=(215, 170, 150)):
    """A dark disc on plain skin."""
    image = Image.new("RGB", (224, 224), skin)
    ImageDraw.Draw(image).ellipse((112 - radius, 112 - radius, 112 + radius, 112 + radius), fill=(80, 50, 40))
    return image


def test_every_measure_belongs_to_a_reason_and_has_its_share_of_alarms():
    assert set(MEASURES.values()) == set(CODES)
    assert fit.SHARES.keys() == MEASURES.keys()
    assert sum(fit.SHARES.values()) == pytest.approx(1)


def test_blur_counts_whatever_the_contrast():
    image = draw(3, (224, 224)).image
    sharp, faint = as_pixels(image), as_pixels(image.point(lambda value: value // 2 + 60))
    soft = as_pixels(image.filter(ImageFilter.GaussianBlur(3)))
    values = [pixels.softness(pixels.planes(picture)).item() for picture in (sharp, faint, soft)]
    assert abs(values[0] - values[1]) < 0.2 < values[2] - values[0]


def test_exposure_is_measured_in_the_middle_of_the_picture():
    tube = Image.new("RGB", (224, 224))
    tube.paste((200, 170, 150), (40, 40, 184, 184))
    black, skin = (Image.new("RGB", (224, 224), colour) for colour in ((20, 12, 10), (200, 170, 150)))
    darkness = pixels.darkness(pixels.planes(as_pixels(black, tube, skin))).tolist()
    assert darkness[0] > 0.9 > darkness[1] == pytest.approx(darkness[2])
    assert pixels.brightness(pixels.planes(as_pixels(tube))).item() == pytest.approx(1 - darkness[1])
    white = Image.new("RGB", (224, 224), (120, 120, 120))
    white.paste((255, 255, 255), (56, 56, 112, 168))  # the left half of the centre
    assert pixels.glare(pixels.planes(as_pixels(white))).item() == pytest.approx(0.5)


@pytest.mark.parametrize(("corners", "radii"), [(False, (60, 20, 6)), (True, (60, 30))])
def test_a_lesion_counts_by_its_share_of_the_picture(corners, radii):
    images = [spot(radius) for radius in radii]
    if corners:
        for image in images:
            for x, y in ((0, 0), (190, 0), (0, 190), (190, 190)):
                image.paste((0, 0, 0), (x, y, x + 34, y + 34))
    share = 1 - pixels.emptiness(pixels.planes(as_pixels(*images)))
    expected = [np.pi * radius**2 / 224**2 for radius in radii]
    assert share.tolist() == pytest.approx(expected, rel=0.5, abs=0.004)


def test_appearance_has_the_size_it_says(lesions):
    assert pixels.appearance(pixels.planes(lesions)).shape == (len(lesions), pixels.APPEARANCE)


def test_a_cloud_makes_its_own_vectors_uncorrelated():
    torch.manual_seed(0)
    vectors = torch.randn(4000, 6) @ torch.randn(6, 6) + 5
    cloud = Cloud.around(vectors)
    inside = (vectors - cloud.mean) @ cloud.whiten
    assert inside.square().mean().item() == pytest.approx(1, abs=0.3)
    apart = 30 * vectors.std(dim=0) * torch.tensor([1, -1, 1, -1, 1, -1])
    far = (vectors + apart - cloud.mean) @ cloud.whiten
    assert far.square().mean(dim=1).min() > inside.square().mean(dim=1).max()


@pytest.mark.parametrize("images", [40, 600])
def test_limits_keep_the_alarms_of_all_measures_together(images):
    """On the images that chose them exactly; on new ones of the same kind nearly."""
    torch.manual_seed(1)
    mix = torch.randn(len(MEASURES), len(MEASURES))
    found = []
    for _ in range(20):
        values = torch.randn(images, len(MEASURES)) @ mix
        limits = fit.choose_limits(values)
        share = fit.noticed(values, limits).any(dim=1).float().mean()
        assert share <= fit.ALARMS
        new = torch.randn(4000, len(MEASURES)) @ mix
        found.append(fit.noticed(new, limits).any(dim=1).float().mean().item())
    assert 0.02 < np.mean(found) < (0.05 if images == 600 else 0.15)


def test_of_two_collections_each_limit_is_the_looser(mini):
    """So that neither is noticed more often than alone."""

    def examples(prefix, seeds, change=lambda image: image):
        for seed in seeds:
            buffer = io.BytesIO()
            change(draw(seed).image).save(buffer, "PNG")
            yield Example(f"{prefix}{seed}", f"{prefix}{seed}", seed % 7, prefix, buffer.getvalue)

    known, held_out = list(examples("train", range(8))), list(examples("held out", range(8, 12)))
    blurred = list(examples("other", range(12, 20), lambda image: image.filter(ImageFilter.GaussianBlur(8))))
    bundle = Bundle.open(mini)
    alone = fit.fit_quality(bundle, Parts(train=known, calibration=held_out)).limits
    both = fit.fit_quality(bundle, Parts(train=known, calibration=held_out, other=blurred)).limits
    assert all(both[name] >= alone[name] for name in MEASURES)
    assert both["softness"] > alone["softness"]


def test_a_lesion_passes_and_pictures_of_something_else_do_not(classifier):
    drawn = torch.cat([noise(kind, 3, seed=7) for kind in KINDS])
    assert all(found for found in names(classifier, drawn))
    assert any("out_of_distribution" in found for found in names(classifier, drawn))


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ("blur, sigma 4", "blur"),
        ("light times 0.1", "exposure"),
        ("light times 2", "exposure"),
        ("shrunk to 1/8", "small_lesion"),
    ],
)
def test_each_reason_is_given_for_its_damage(classifier, lesions, damage, code):
    before = [code in found for found in names(classifier, lesions)]
    after = [code in found for found in names(classifier, DAMAGES[damage](lesions))]
    assert sum(after) > len(after) / 2 > sum(before)


def test_the_answer_itself_is_the_same_without_the_check(mini, classifier, lesions):
    unchecked = Classifier.from_bundle(Bundle.open(mini))
    unchecked.check = QualityCheck(None)
    with torch.inference_mode():
        ours, theirs = classifier(lesions), unchecked(lesions)
    assert not theirs.quality.any()
    assert theirs.quality.shape == ours.quality.shape
    for name in ("probabilities", "risk", "triage", "prediction_set", "embedding"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize("checked", [True, False])
def test_the_graph_notices_what_pytorch_notices(mini, classifier, lesions, tmp_path, checked):
    pictures = torch.cat(
        [lesions, *(damage(lesions[:2]) for damage in DAMAGES.values()), *(noise(k, 2, 3) for k in KINDS)]
    )
    own = Classifier.from_bundle(Bundle.open(mini))
    if not checked:
        own.check = QualityCheck(None)
    export_onnx(own, tmp_path / "model.onnx")
    found = OnnxClassifier(tmp_path / "model.onnx")(pictures).quality
    with torch.inference_mode():
        assert torch.equal(found, own(pictures).quality)
    assert found.any() == checked


def test_what_is_not_a_number_is_noticed(mini, lesions):
    check = QualityCheck(Bundle.open(mini).quality)
    assert check(lesions, torch.full((len(lesions), 192), torch.nan))[
        :, CODES.index("out_of_distribution")
    ].all()


def test_a_bundle_without_limits_answers_and_notices_nothing(mini, tmp_path):
    folder = shutil.copytree(mini, tmp_path / "older")
    (folder / LIMITS).unlink()
    (folder / CLOUDS).unlink()
    facts = {
        k: v
        for k, v in json.loads((folder / "bundle.json").read_text()).items()
        if k not in ("schema_version", "files")
    }
    bundle = seal(folder, **facts)
    assert bundle.quality is None
    assert names(Classifier.from_bundle(bundle), noise("clouds", 2, 0)) == [[], []]


def test_altered_limits_are_refused(mini, tmp_path):
    for name in (LIMITS, CLOUDS):
        folder = shutil.copytree(mini, tmp_path / name)
        with (folder / name).open("ab") as file:
            file.write(b" ")
        with pytest.raises(BundleError, match=name):
            Bundle.open(folder)


def test_limits_survive_their_files_and_must_be_complete(tmp_path):
    cloud, other = Cloud.around(torch.randn(30, 4)), Cloud.around(torch.randn(30, 4))
    quality = Quality(
        dict.fromkeys(MEASURES, 0.5), {"embedding": other, "appearance": cloud}, {"alarms": 0.04}
    )
    write_quality(tmp_path, quality)
    found = read_quality(tmp_path)
    assert (found.limits, found.report) == (quality.limits, quality.report)
    assert torch.equal(found.clouds["appearance"].whiten, cloud.whiten)
    (tmp_path / LIMITS).write_text(json.dumps({"limits": {"softness": 1}, "report": {}}))
    with pytest.raises(ValueError, match="must give limits of softness, darkness"):
        read_quality(tmp_path)
