"""Preprocessing equals open_clip's evaluation transform on Pillow's own RGB image, bit for bit."""

import io

import numpy as np
import pytest
from open_clip.transform import image_transform
from PIL import Image, ImageOps

from derma_semantics.imaging.preprocess import preprocess
from derma_semantics.imaging.synthetic import draw

SIZES = [
    (600, 450),
    (450, 600),
    (224, 224),
    (1024, 768),
    (225, 224),
    (223, 500),
    (64, 40),
    (333, 1000),
    (301, 449),
]
MODES = {
    "JPEG": ["RGB", "L", "CMYK"],
    "PNG": ["RGB", "L", "P", "RGBA", "LA", "1"],
    "WEBP": ["RGB", "RGBA"],
    "TIFF": ["RGB", "L", "P", "RGBA", "CMYK", "YCbCr"],
    "BMP": ["RGB", "L", "P"],
}


@pytest.fixture(scope="module")
def reference():
    """open_clip's transform without normalisation: uint8 (224, 224, 3)."""
    transform = image_transform(224, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))

    def run(data):
        rgb = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        return (transform(rgb).permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)

    return run


def encode(image, format):
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size(reference, size):
    data = encode(draw(1, size).image, "JPEG")
    assert (preprocess(data) == reference(data)).all()


@pytest.mark.parametrize(("format", "mode"), [(f, m) for f, modes in MODES.items() for m in modes])
def test_every_format_and_mode(reference, format, mode):
    data = encode(draw(2, (400, 300)).image.convert(mode), format)
    assert (preprocess(data) == reference(data)).all()


def test_real_photographs(reference, isic2018):
    for path in sorted((isic2018 / "ISIC2018_Task3_Training_Input").glob("*.jpg"))[::200]:
        data = path.read_bytes()
        assert (preprocess(data) == reference(data)).all(), path.name


def test_full_size_photographs(reference, fullsize):
    for path in sorted((fullsize / "images").glob("*.jpg"))[::5]:
        data = path.read_bytes()
        assert (preprocess(data) == reference(data)).all(), path.name
