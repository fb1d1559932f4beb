"""Losses against values worked out by hand, and against open_clip's own."""

import math

import pytest
import torch
from open_clip.loss import ClipLoss
from torch.nn import functional as F

from derma_training.learning import losses

# Two images and two texts in the plane: image 0 lies on text 0, image 1 between both.
IMAGE = torch.tensor([[1.0, 0.0], [math.sqrt(0.5), math.sqrt(0.5)]])
TEXT = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
SCALE = torch.tensor(2.0)
HALF = math.sqrt(0.5)


def log_sum(*values):
    return math.log(sum(math.exp(v) for v in values))


def test_definitions_by_hand():
    even = torch.tensor([0.5, 0.5])
    expected = (log_sum(2, 0) - 2 + math.log(2)) / 2
    assert losses.definitions(IMAGE, TEXT, torch.tensor([0, 1]), SCALE, even).item() == pytest.approx(
        expected
    )


def test_logit_adjustment_by_hand():
    """The prior's logarithm is added in training, so a frequent condition must earn its place."""
    prior = torch.tensor([0.9, 0.1])
    first = log_sum(2 + math.log(0.9), math.log(0.1)) - 2 - math.log(0.9)
    second = log_sum(2 * HALF + math.log(0.9), 2 * HALF + math.log(0.1)) - 2 * HALF - math.log(0.1)
    value = losses.definitions(IMAGE, TEXT, torch.tensor([0, 1]), SCALE, prior).item()
    assert value == pytest.approx((first + second) / 2)


def test_definitions_with_a_mixture():
    target = torch.tensor([[0.25, 0.75]])
    expected = log_sum(2, 0) - 0.25 * 2
    even = torch.ones(2)
    assert losses.definitions(IMAGE[:1], TEXT, target, SCALE, even).item() == pytest.approx(expected)


def test_distillation_by_hand():
    """Two conditions at logits 2 and 0, at softness 2 and so 1 and 0; the teachers say 0 and 2."""
    image, text = torch.tensor([[1.0, 0.0]]), torch.eye(2)
    p = math.e / (math.e + 1)
    divergence = (1 - p) * math.log((1 - p) / p) + p * math.log(p / (1 - p))
    loss = losses.distillation(image, text, SCALE, torch.tensor([[0.0, 2.0]]), 2.0)
    assert loss.item() == pytest.approx(4 * divergence)
    agreed = losses.distillation(image, text, SCALE, torch.tensor([[7.0, 5.0]]), 2.0)
    assert agreed.item() == pytest.approx(0, abs=1e-6)


def test_clip_is_open_clip_s():
    torch.manual_seed(0)
    image, text = (F.normalize(torch.randn(6, 5), dim=-1) for _ in range(2))
    assert losses.clip(image, text, SCALE) == ClipLoss()(image, text, SCALE)
    by_hand = (
        (log_sum(2, 0) - 2) + math.log(2) + (log_sum(2, 2 * HALF) - 2) + (log_sum(0, 2 * HALF) - 2 * HALF)
    ) / 4
    assert losses.clip(IMAGE, TEXT, SCALE).item() == pytest.approx(by_hand)


def test_unicl_by_hand():
    """Three pairs, the first two of one condition: each has two positives of weight one half."""
    image = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    labels = torch.tensor([0, 0, 1])
    rows = [log_sum(2, 0, 0) - (2 + 0) / 2] * 2 + [log_sum(0, 2, 2) - 2]
    columns = [log_sum(2, 2, 0) - 2, log_sum(0, 0, 2) - 0, log_sum(0, 0, 2) - 2]
    expected = (sum(rows) / 3 + sum(columns) / 3) / 2
    assert losses.unicl(image, text, labels, SCALE).item() == pytest.approx(expected)


def test_unicl_without_repeats_is_clip():
    torch.manual_seed(1)
    image, text = (F.normalize(torch.randn(4, 5), dim=-1) for _ in range(2))
    value = losses.unicl(image, text, torch.arange(4), SCALE)
    assert value.item() == pytest.approx(losses.clip(image, text, SCALE).item(), rel=1e-6)


def test_only_clip_pushes_images_of_one_condition_apart():
    """With every pair of one condition UniCL has nothing to separate; InfoNCE has."""
    same = torch.zeros(3, dtype=torch.long)
    image = torch.tensor([[1.0, 0.0]] * 3, requires_grad=True)
    text = F.normalize(torch.tensor([[1.0, 0.1], [1.0, -0.1], [1.0, 0.0]]), dim=-1)
    losses.unicl(image, text, same, SCALE).backward()
    pull = image.grad.clone()
    image.grad = None
    losses.clip(image, text, SCALE).backward()
    assert pull[:, 1].abs().max() < 1e-3
    assert image.grad[:, 1].abs().max() > 1e-2
