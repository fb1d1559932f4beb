"""The loss against values worked out by hand."""

import math

import pytest
import torch

from derma_training.learning.objective import contrastive

# Two images and two texts in the plane: image 0 lies on text 0, image 1 between both.
IMAGE = torch.tensor([[1.0, 0.0], [math.sqrt(0.5), math.sqrt(0.5)]])
TEXT = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
SCALE = torch.tensor(2.0)
HALF = math.sqrt(0.5)


def log_sum(*values):
    return math.log(sum(math.exp(v) for v in values))


def test_cross_entropy_by_hand():
    even = torch.tensor([0.5, 0.5])
    expected = (log_sum(2, 0) - 2 + math.log(2)) / 2
    assert contrastive(IMAGE, TEXT, torch.tensor([0, 1]), SCALE, even).item() == pytest.approx(expected)


def test_logit_adjustment_by_hand():
    """The prior's logarithm is added in training, so a frequent condition must earn its place."""
    prior = torch.tensor([0.9, 0.1])
    first = log_sum(2 + math.log(0.9), math.log(0.1)) - 2 - math.log(0.9)
    second = log_sum(2 * HALF + math.log(0.9), 2 * HALF + math.log(0.1)) - 2 * HALF - math.log(0.1)
    value = contrastive(IMAGE, TEXT, torch.tensor([0, 1]), SCALE, prior).item()
    assert value == pytest.approx((first + second) / 2)


def test_a_mixture_by_hand():
    target = torch.tensor([[0.25, 0.75]])
    expected = log_sum(2, 0) - 0.25 * 2
    even = torch.ones(2)
    assert contrastive(IMAGE[:1], TEXT, target, SCALE, even).item() == pytest.approx(expected)
