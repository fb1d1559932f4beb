"""What preprocessing refuses, and how it says so."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from derma_semantics.domain import errors
from derma_semantics.domain.contract import MAX_ENCODED_BYTES
from derma_semantics.imaging.preprocess import decode, preprocess


def encode(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_header(width, height):
    """A PNG that announces its size and holds almost nothing."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_shape_and_type(jpeg):
    pixels = preprocess(jpeg(0))
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8


def test_empty():
    with pytest.raises(errors.EmptyImage, match="0 bytes"):
        preprocess(b"")


@pytest.mark.parametrize(
    "data", [b"hello, this is text\n" * 10, b"GIF89a" + bytes(100), b"%PDF-1.7" + bytes(50)]
)
def test_unsupported_format(data):
    with pytest.raises(errors.UnsupportedFormat, match="JPEG, PNG, WEBP, TIFF, BMP"):
        preprocess(data)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_truncated(picture, format, share):
    data = encode(picture(1), format)
    with pytest.raises(errors.InvalidImage) as caught:
        preprocess(data[: int(len(data) * share)])
    assert isinstance(caught.value, (errors.CorruptImage, errors.UnsupportedFormat))


def test_too_many_bytes():
    with pytest.raises(errors.ImageTooLarge, match=r"20\.0 MiB; the limit is 20 MiB"):
        preprocess(b"\xff\xd8" + bytes(MAX_ENCODED_BYTES))


@pytest.mark.parametrize("side", [7_072, 10_000, 30_000, 100_000])
def test_too_many_pixels_are_refused_by_the_header_alone(side):
    with pytest.raises(errors.ImageTooLarge, match=f"has {side**2 / 1e6:.1f} megapixels; the limit is 50"):
        preprocess(png_header(side, side))


@pytest.mark.parametrize("size", [(31, 400), (400, 31), (1, 1)])
def test_too_small(size):
    with pytest.raises(errors.ImageTooSmall, match=rf"{size[0]} x {size[1]}.*at least 32"):
        preprocess(encode(Image.new("RGB", size), "PNG"))


@pytest.mark.parametrize("size", [(32, 3201), (40_000, 64)])
def test_strips_are_refused(size):
    """Resizing their short side to 224 would need gigabytes for a few kilobytes of PNG."""
    with pytest.raises(errors.ImageTooNarrow, match="at most 100 times"):
        preprocess(encode(Image.new("1", size), "PNG"))


def test_floating_point_pixels_have_a_named_reason():
    data = encode(Image.fromarray(np.zeros((64, 64), np.float32)), "TIFF")
    with pytest.raises(errors.UnsupportedFormat, match="mode F"):
        preprocess(data)


def test_every_mode_becomes_rgb(picture):
    rgb = picture(2)
    grey16 = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) << 8)
    cases = {
        "CMYK JPEG": encode(rgb.convert("CMYK"), "JPEG"),
        "CMYK TIFF": encode(rgb.convert("CMYK"), "TIFF"),
        "palette PNG": encode(rgb.convert("P"), "PNG"),
        "palette with transparency": encode(rgb.convert("P"), "PNG", transparency=0),
        "grey": encode(rgb.convert("L"), "PNG"),
        "grey with alpha": encode(rgb.convert("LA"), "PNG"),
        "1 bit": encode(rgb.convert("1"), "PNG"),
        "alpha": encode(rgb.convert("RGBA"), "WEBP"),
        "16 bit PNG": encode(grey16, "PNG"),
        "16 bit TIFF": encode(grey16, "TIFF"),
        "YCbCr TIFF": encode(rgb.convert("YCbCr"), "TIFF"),
    }
    for name, data in cases.items():
        image = decode(data)
        assert image.mode == "RGB", name
        assert image.size == rgb.size, name
        assert np.asarray(image).std() > 5, f"{name} lost its picture"


def test_16_bit_keeps_its_high_byte():
    grey = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    pixels = np.asarray(decode(encode(Image.fromarray(grey), "PNG")))
    assert (pixels == (grey >> 8)[..., None]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(picture, orientation):
    upright = picture(3)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, "PNG", exif=exif)
    assert (np.asarray(decode(data)) == np.asarray(upright)).all()


def test_error_crosses_the_wire():
    message = "in ensemble 'derma_classifier', " + errors.to_wire(errors.CorruptImage("the JPEG is damaged"))
    error = errors.from_wire(message)
    assert type(error) is errors.CorruptImage
    assert str(error) == "the JPEG is damaged"
    assert errors.from_wire("unexpected shape for input 'IMAGE'") is None
