"""HEIC and HEIF: decoded here, sent as pixels."""

import io
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from derma_semantics.domain import contract, errors
from derma_semantics.domain.formats import HEIF
from derma_semantics.imaging import heif
from derma_semantics.imaging.images import encoded, opened
from derma_semantics.imaging.preprocess import preprocess_image
from tests.unit.photographs import rgb
from tests.unit.test_real_files import display_p3, p3_as_srgb

HEADER = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic"


@pytest.fixture
def save():
    """Encodes a picture as HEIC; a test that needs it is skipped where pillow-heif is not installed."""
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")

    def encode(image, **options):
        buffer = io.BytesIO()
        pillow_heif.from_pillow(image).save(buffer, quality=100, chroma=444, **options)
        return buffer.getvalue()

    return encode


def test_it_is_told_by_its_brand():
    assert HEIF.begins(HEADER)
    assert not HEIF.begins(HEADER.replace(b"ftypheic", b"ftypmp42"))


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(errors.UnsupportedFormat, match=r"pip install 'derma-semantics\[heic\]'"):
        encoded(HEADER)


def test_a_damaged_file_is_refused():
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    with pytest.raises(errors.CorruptImage, match="HEIF cannot be read"):
        encoded(HEADER + bytes(100))


def test_a_photograph_is_sent_as_pixels_alone(save, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Nightingale"
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(save(rgb(size=(300, 225)), exif=exif.tobytes()))
    assert b"Nightingale" in path.read_bytes()
    sent = encoded(path)
    assert b"Nightingale" not in sent
    with Image.open(io.BytesIO(sent)) as image:
        assert (image.format, image.size) == ("PNG", (contract.IMAGE_SIZE, contract.IMAGE_SIZE))
        away = np.abs(np.asarray(image).astype(int) - preprocess_image(rgb(size=(300, 225))))
    assert away.max() <= 8 and away.mean() < 1


def test_it_is_upright_once(save):
    """The orientation stands in EXIF and in the container, which alone counts."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = opened(save(rgb(size=(60, 45)), exif=exif.tobytes()))
    upright = np.asarray(rgb(size=(60, 45)).transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert image.size == (45, 60)
    assert np.abs(np.asarray(image) - upright).max() <= 8
    assert dict(image.getexif()) == {}


def test_a_wide_gamut_is_read_as_srgb(save):
    red = Image.new("RGB", (64, 64), (200, 60, 60))
    red.info["icc_profile"] = display_p3()
    wide = np.asarray(opened(save(red)))[32, 32]
    assert abs(wide.astype(int) - p3_as_srgb((200, 60, 60))).max() <= 3


def test_limits_hold_before_anything_is_decoded(save, monkeypatch):
    with pytest.raises(errors.ImageTooSmall):
        encoded(save(Image.new("RGB", (64, 16))))
    data = save(Image.new("RGB", (640, 480)))
    monkeypatch.setattr("derma_semantics.imaging.preprocess.MAX_PIXELS", 1000)
    monkeypatch.setattr(heif, "upright_rgb", lambda image: pytest.fail("decoded"))
    with pytest.raises(errors.ImageTooLarge):
        encoded(data)
