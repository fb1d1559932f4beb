"""Shares and counts as the page writes them."""

import pytest

from derma_semantics.app import texts


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0"), (0.001, "<1"), (0.005, "<1"), (0.126, "13"), (0.994, "99"), (0.996, ">99"), (1, "100")],
)
def test_percentages(share, text):
    assert texts.percent(share) == f"{text}\u00a0%"


def test_plurals():
    assert texts.count(0, "image") == "0 images"
    assert texts.count(1, "image") == "1 image"
    assert texts.count(1200, "image was", "images were") == "1,200 images were"
