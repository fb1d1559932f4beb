"""What a ticket proves, and what it does not let pass."""

import hashlib

import numpy as np
import pytest

from derma_serving.runtime import ticket

IMAGE, PIXELS = b"an image", np.arange(224 * 224 * 3, dtype=np.uint8).reshape(224, 224, 3)


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv(ticket.SECRET, "5a" * 32)


def test_it_names_the_image_that_the_pixels_were_made_from():
    issued = ticket.issue(IMAGE, PIXELS)
    assert (issued.shape, issued.dtype) == ((ticket.SIZE,), np.uint8)
    assert ticket.redeem(issued, PIXELS) == hashlib.sha256(IMAGE).hexdigest()


@pytest.mark.parametrize("position", range(0, ticket.SIZE, 7))
def test_a_changed_ticket_is_none(position):
    issued = ticket.issue(IMAGE, PIXELS).copy()
    issued[position] ^= 1
    assert ticket.redeem(issued, PIXELS) is None


@pytest.mark.parametrize("position", [0, PIXELS.size // 2, PIXELS.size - 1])
def test_the_ticket_of_other_pixels_is_none(position):
    issued, other = ticket.issue(IMAGE, PIXELS), PIXELS.copy()
    other.flat[position] ^= 1
    assert ticket.redeem(issued, other) is None


def test_a_guess_is_none():
    for guess in (np.zeros(ticket.SIZE, np.uint8), ticket.issue(b"another", PIXELS[::-1])):
        assert ticket.redeem(guess, PIXELS) is None


def test_a_ticket_is_of_one_start(monkeypatch):
    issued = ticket.issue(IMAGE, PIXELS)
    monkeypatch.setenv(ticket.SECRET, "5b" * 32)
    assert ticket.redeem(issued, PIXELS) is None


def test_they_are_wanted_where_the_launcher_says_so(monkeypatch):
    assert ticket.wanted()
    monkeypatch.delenv(ticket.SECRET)
    assert not ticket.wanted()
