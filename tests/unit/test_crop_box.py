"""The rectangle that ``crop_box`` names is the one that ``resize_and_crop`` takes."""

import numpy as np
import pytest
from PIL import Image

from derma_semantics.imaging.preprocess import crop_box, resize_and_crop

SIZES = [(600, 450), (450, 600), (224, 224), (1022, 767), (300, 225), (33, 999), (223, 640)]


def ramps(size):
    """A picture whose red grows with x and whose green grows with y."""
    across, down = (np.arange(n) / n * 255 for n in size)
    red, green = np.meshgrid(across, down)
    return Image.fromarray(np.stack([red, green, 0 * red], axis=-1).round().astype(np.uint8))


@pytest.mark.parametrize("size", SIZES)
def test_pixels_come_from_the_box(size):
    left, top, right, bottom = crop_box(size)
    pixels = resize_and_crop(ramps(size)).astype(float)
    centres = (np.arange(224) + 0.5) / 224
    x, y = left + centres * (right - left) - 0.5, top + centres * (bottom - top) - 0.5
    inner = slice(8, -8)  # bicubic bends the ramp at the picture's edge
    assert np.abs(pixels[:, inner, 0].mean(axis=0) - (x / size[0] * 255)[inner]).max() < 1.5
    assert np.abs(pixels[inner, :, 1].mean(axis=1) - (y / size[1] * 255)[inner]).max() < 1.5


@pytest.mark.parametrize("size", SIZES)
def test_box_lies_within_the_photograph(size):
    left, top, right, bottom = crop_box(size)
    assert left >= 0 and top >= 0
    assert right <= size[0] * (1 + 1e-9) and bottom <= size[1] * (1 + 1e-9)


def test_a_square_is_whole():
    assert crop_box((500, 500)) == pytest.approx((0, 0, 500, 500))
