"""The explainer on the committed bundle: what it explains, and each method's mathematics."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from derma_saliency.explainer import Explainer, smooth
from derma_saliency.methods import METHODS
from derma_saliency.texts import check_text
from derma_saliency.tower import recorded
from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.errors import InvalidRequest
from derma_semantics.imaging.preprocess import preprocess
from derma_training.bundle import Bundle
from derma_training.network.classifier import Classifier


@pytest.fixture(scope="module")
def explainer(mini):
    return Explainer.from_bundle(Bundle.open(mini), device="cpu")


@pytest.fixture(scope="module")
def pixels(jpeg):
    return torch.from_numpy(np.stack([preprocess(jpeg(seed)) for seed in range(3)]))


@pytest.mark.parametrize("method", METHODS)
def test_answers_are_the_classifiers(explainer, mini, jpeg, method):
    found = explainer.explain(jpeg(0), condition="MEL", method=method)
    with torch.inference_mode():
        expected = Classifier.from_bundle(Bundle.open(mini))(torch.from_numpy(preprocess(jpeg(0)))[None])
    assert list(found.probabilities) == list(CODES)
    assert list(found.probabilities.values()) == pytest.approx(expected.probabilities[0].tolist(), abs=1e-5)
    similarity = (expected.embedding @ explainer.classifier.text.T)[0]
    assert found.score == pytest.approx(float(similarity[0] - similarity[1:].mean()), abs=1e-5)
    assert found.bundle_digest == Bundle.open(mini).digest


@pytest.mark.parametrize("method", METHODS)
def test_another_text_gives_another_map(explainer, jpeg, method):
    grids = [
        explainer.explain(jpeg(0), method=method, **text).grid
        for text in ({"condition": "MEL"}, {"condition": "VASC"}, {"prompt": "a bright red spot"})
    ]
    for one, other in ((0, 1), (0, 2)):
        assert np.abs(grids[one] - grids[other]).max() > 0.05
    for grid in grids:
        assert grid.dtype == np.float32 and grid.shape == (14, 14)
        assert grid.min() == 0 and grid.max() == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_gives_what_single_images_give(explainer, pixels, method):
    directions = torch.stack([explainer.texts.direction(condition=c) for c in CODES[:3]])
    together, _ = explainer.relevance(pixels, directions, method)
    for i in range(3):
        alone, _ = explainer.relevance(pixels[i : i + 1], directions[i : i + 1], method)
        assert torch.allclose(together[i], alone[0], atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_stays_behind(explainer, pixels, method):
    directions = explainer.texts.direction(condition="MEL")[None]
    explainer.relevance(pixels[:1], directions, method)
    modules = list(explainer.classifier.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)
    assert all(p.grad is None for p in explainer.classifier.parameters())


def test_attention_gradient_is_the_slope_of_the_score(explainer, pixels):
    """A small change of one attention weight moves the score as its gradient says."""
    classifier, direction = explainer.classifier, explainer.texts.direction(condition="MEL")
    with recorded(classifier.visual, -1) as blocks:
        score = (classifier(pixels[:1]).embedding @ direction).sum()
    (gradient,) = torch.autograd.grad(score, blocks[0].attention)
    place = (0, 1, 0, int(gradient[0, 1, 0].abs().argmax()))
    step = 1e-2
    scores = []
    for change in (step, -step):

        def moved(_, __, attention, change=change):
            attention = attention.detach().clone()
            attention[place] += change
            return attention

        handle = classifier.visual.trunk.blocks[-1].attn.attn_drop.register_forward_hook(moved)
        with torch.no_grad():
            scores.append(float((classifier(pixels[:1]).embedding @ direction).sum()))
        handle.remove()
    assert (scores[0] - scores[1]) / (2 * step) == pytest.approx(float(gradient[place]), rel=0.02)


def test_map_follows_the_exif_orientation(explainer, picture):
    """A file that lies on its side gives the map of the upright photograph."""
    upright, rotated = io.BytesIO(), io.BytesIO()
    picture(2).save(upright, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    picture(2).transpose(Image.Transpose.ROTATE_90).save(rotated, "PNG", exif=exif)
    one, other = (explainer.explain(b.getvalue(), condition="MEL") for b in (upright, rotated))
    assert one.size == other.size == (300, 225)
    assert one.map.shape == (225, 300)
    assert np.allclose(one.map, other.map, atol=1e-4)


def test_map_follows_the_lesion(explainer, picture):
    """Turned upside down, the photograph's map is turned too: its geometry is the photograph's."""
    grids = []
    for image in (picture(3), picture(3).transpose(Image.Transpose.ROTATE_180)):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        grids.append(explainer.explain(buffer.getvalue(), condition="MEL").map)
    turned = grids[1][::-1, ::-1]
    assert np.corrcoef(grids[0].ravel(), turned.ravel())[0, 1] > 0.7


def test_smoothing_scales_and_survives_a_flat_map():
    grids = torch.zeros(2, 14, 14)
    grids[0, 4, 5] = 3
    smoothed = smooth(grids)
    assert smoothed[0].argmax() == 4 * 14 + 5
    assert smoothed[0].max() == 1
    assert smoothed[1].abs().max() == 0


def test_prompts_are_embedded_once(explainer):
    before = explainer.texts._embedded.cache_info()
    for _ in range(3):
        explainer.texts.direction(prompt="seen before")
    after = explainer.texts._embedded.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 2)
    assert after.maxsize == 1024


@pytest.mark.parametrize(
    ("prompt", "condition", "reason"),
    [
        (None, None, "either a prompt or a condition"),
        ("x", "MEL", "either a prompt or a condition"),
        (None, "XYZ", "expected one of MEL"),
        ("  ", None, "the prompt is empty"),
        ("x" * 301, None, "301 characters; the limit is 300"),
        ("a\x00b", None, "control characters"),
        ("a\nb", None, "control characters"),
    ],
)
def test_texts_that_are_refused(prompt, condition, reason):
    with pytest.raises(InvalidRequest, match=reason):
        check_text(prompt, condition)
