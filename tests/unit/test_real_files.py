"""Real photographs that odd metadata made unreadable, and cheap files that are costly to decode."""

import io
import random
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from derma_semantics.domain import errors
from derma_semantics.imaging.dicom import to_image
from derma_semantics.imaging.png import SIGNATURE
from derma_semantics.imaging.preprocess import decode, preprocess
from tests.hostile import repeated_scans, with_exif
from tests.unit.photographs import dataset, rgb, saved

SRATIONAL, RATIONAL = 10, 5


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, body, checksum=None):
    check = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def after_header(png, *chunks):
    """The chunks right behind IHDR."""
    end = len(SIGNATURE) + 25
    return png[:end] + b"".join(chunks) + png[end:]


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded():
    began = time.process_time()
    with pytest.raises(errors.ImageTooComplex, match="1510 scans; the limit for 3000 x 3000 pixels is 100"):
        decode(repeated_scans(1500))
    assert time.process_time() - began < 0.5  # to decode it takes ten seconds


def test_the_more_pixels_the_fewer_scans():
    with pytest.raises(errors.ImageTooComplex, match="the limit for 6000 x 6000 pixels is 27"):
        decode(repeated_scans(40, 6000))


def test_ordinary_progressive_jpegs_are_read():
    data = encoded(rgb().resize((600, 450)), "JPEG", progressive=True, quality=90)
    assert decode(data).size == (600, 450)


@pytest.mark.parametrize(
    "tag",
    [
        (0x011A, SRATIONAL, 1, struct.pack("<I", 38)),
        (0x010F, RATIONAL, 1, struct.pack("<I", 38)),
        (0x010F, 99, 7, b"\xff\xff\xff\xff"),
    ],
    ids=["resolution -1/0", "make as a fraction", "unknown type"],
)
def test_an_odd_tag_does_not_hide_the_orientation(tag):
    jpeg = encoded(rgb(), "JPEG")
    turned = decode(with_exif(jpeg, tag))
    assert (np.asarray(turned) == np.asarray(decode(jpeg).transpose(Image.Transpose.ROTATE_270))).all()


def test_what_is_upright_says_nothing_of_its_orientation():
    upright = decode(with_exif(encoded(rgb(), "JPEG")))
    assert dict(upright.getexif()) == {}
    assert (np.asarray(ImageOps.exif_transpose(upright)) == np.asarray(upright)).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_second_tag_makes_a_photograph_unreadable():
    jpeg, draw = encoded(rgb().resize((32, 32)), "JPEG"), random.Random(0)
    for _ in range(3_000):
        tag = (draw.randrange(65536), draw.randrange(20), draw.randrange(2**32), draw.randbytes(4))
        assert decode(with_exif(jpeg, tag)).size == (32, 32)


@pytest.mark.parametrize(
    "odd",
    [
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**22))),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2**22))),
        chunk(b"tEXt", b"Comment\0hello", checksum=1),
        chunk(b"iTXt", b"\xff" * 40),
    ],
    ids=["large text", "large profile", "text with a wrong checksum", "text that is none"],
)
def test_what_pixels_do_not_need_is_not_read(odd):
    png = encoded(rgb(), "PNG")
    assert (preprocess(after_header(png, odd)) == preprocess(png)).all()


def test_a_damaged_pixel_chunk_is_named():
    png = encoded(rgb(), "PNG")
    place = png.index(b"IDAT")
    with pytest.raises(errors.CorruptImage, match="PNG"):
        decode(png[: place + 10] + b"\0\0\0\0" + png[place + 14 :])


def test_a_png_that_fails_only_as_its_colours_are_read_is_refused():
    """Its palette stands before its header, so Pillow gives the picture none."""
    png = encoded(rgb().convert("P"), "PNG")
    header, palette, data = (png.index(kind) - 4 for kind in (b"IHDR", b"PLTE", b"IDAT"))
    with pytest.raises(errors.CorruptImage, match="PNG is truncated or damaged"):
        decode(png[:header] + png[palette:data] + png[header:palette] + png[data:])


def test_a_jpeg_of_12_bits_is_told_so():
    jpeg = encoded(rgb(), "JPEG")
    frame = jpeg.index(b"\xff\xc0")
    with pytest.raises(errors.CorruptImage, match="JPEG cannot be read: cannot handle 12-bit"):
        decode(jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_transparency_hides_changes_no_answer(mode, kind):
    hidden = rgb().convert(mode)
    hidden.putalpha(Image.linear_gradient("L").resize(hidden.size).point(lambda value: 255 * (value > 127)))
    seen = Image.new("RGBA", hidden.size, "white")
    seen.alpha_composite(hidden.convert("RGBA"))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    expected = preprocess(encoded(seen.convert("RGB"), "PNG"))
    assert (preprocess(encoded(hidden, kind, **options)) == expected).all()


@pytest.mark.parametrize(
    "name", ["PlanarConfiguration", "PhotometricInterpretation", "SamplesPerPixel", "PixelRepresentation"]
)
def test_a_missing_dicom_attribute_is_named(name):
    ds = dataset(rgb())
    delattr(ds, name)
    with pytest.raises(errors.CorruptImage, match=f"lacks the attribute {name}"):
        to_image(saved(ds))


def test_dicom_bits_that_do_not_begin_at_the_lowest_are_refused():
    ds = dataset(rgb(), HighBit=6)
    with pytest.raises(errors.UnsupportedFormat, match="HighBit is 6; supported is 7"):
        to_image(saved(ds))


def display_p3():
    """A profile of matrix and gamma, as phones embed; primaries of SMPTE EG 432-1, adapted to D50."""

    def fixed(value):
        return struct.pack(">i", round(value * 65536))

    def point(*xyz):
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, xyz))

    tags = {
        b"rXYZ": point(0.5151, 0.2412, -0.0011),
        b"gXYZ": point(0.2920, 0.6922, 0.0419),
        b"bXYZ": point(0.1571, 0.0666, 0.7841),
        b"wtpt": point(0.9642, 1.0, 0.8249),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv\x00\x00\x00\x00\x00\x00\x00\x01\x023\x00\x00"),
    }
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642) + fixed(1.0) + fixed(0.8249)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def p3_as_srgb(colour):
    """By matrix: CSS Color Module Level 4, section 18, sample code (Display P3 to linear sRGB)."""
    matrix = [[1.22494, -0.22494, 0.0], [-0.04206, 1.04206, 0.0], [-0.01964, -0.07864, 1.09827]]
    linear = np.array(matrix) @ (np.array(colour) / 255) ** (0x233 / 256)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_display_p3_is_read_as_srgb(kind):
    red = Image.new("RGB", (64, 64), (200, 60, 60))
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    plain = np.asarray(decode(encoded(red, kind, **options)))[32, 32]
    wide = np.asarray(decode(encoded(red, kind, icc_profile=display_p3(), **options)))[32, 32]
    assert abs(plain.astype(int) - [200, 60, 60]).max() <= 2
    assert abs(wide.astype(int) - p3_as_srgb((200, 60, 60))).max() <= 2


@pytest.mark.parametrize("profile", [b"none", bytes(200), display_p3()[:150]])
def test_a_damaged_profile_is_ignored(profile):
    jpeg = encoded(rgb(), "JPEG")
    assert (decode(encoded(rgb(), "JPEG", icc_profile=profile)).tobytes()) == decode(jpeg).tobytes()


@pytest.mark.parametrize("kind", ["TIFF", "WEBP"])
def test_several_pages_are_refused(kind):
    pages = [rgb(), rgb().rotate(90, expand=True).resize(rgb().size)]
    with pytest.raises(errors.UnsupportedFormat, match=f"{kind} file has several pages; the limit is 1"):
        decode(encoded(pages[0], kind, save_all=True, append_images=pages[1:]))
