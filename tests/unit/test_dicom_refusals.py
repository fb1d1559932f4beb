"""DICOM in: what is refused, and how it is said."""

import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image
from pydicom import uid

from derma_semantics.domain import contract, errors
from derma_semantics.imaging import images
from derma_semantics.imaging.dicom import files, is_dicom, to_image
from tests.unit.photographs import compressed, dataset, rgb, saved, stream


@pytest.mark.parametrize(
    ("attributes", "error", "message"),
    [
        ({"SOPClassUID": uid.CTImageStorage}, errors.UnsupportedFormat, "CT Image Storage"),
        ({"SOPClassUID": "1.2.840.113619.4.2"}, errors.UnsupportedFormat, "1.2.840.113619.4.2"),
        ({"NumberOfFrames": 12}, errors.UnsupportedFormat, "12 frames; the limit is 1"),
        ({"BurnedInAnnotation": "YES"}, errors.UnsupportedFormat, "BurnedInAnnotation = YES"),
        ({"RecognizableVisualFeatures": "YES"}, errors.UnsupportedFormat, "RecognizableVisualFeatures"),
        ({"PhotometricInterpretation": "CMYK"}, errors.UnsupportedFormat, "photometric interpretation"),
        ({"BitsAllocated": 32}, errors.UnsupportedFormat, "32 bits"),
        ({"PixelRepresentation": 1}, errors.UnsupportedFormat, "signed"),
        ({"SamplesPerPixel": 1}, errors.CorruptImage, "1 samples per pixel in RGB"),
        ({"Rows": 9_000, "Columns": 9_000}, errors.ImageTooLarge, "81.0 megapixels; the limit is 50"),
        ({"Rows": 20}, errors.ImageTooSmall, "60 x 20; each side needs at least 32"),
        ({"Rows": 6_100}, errors.ImageTooNarrow, "at most 100 times"),
        ({"Rows": 46}, errors.CorruptImage, "truncated or damaged"),
    ],
)
def test_what_the_header_refuses(attributes, error, message):
    with pytest.raises(error, match=message):
        to_image(saved(dataset(rgb(), **attributes)))


@pytest.mark.parametrize(
    "syntax", [uid.JPEGLSLossless, uid.JPEGLosslessSV1, uid.HTJ2K, uid.MPEG4HP41], ids=lambda u: u.name
)
def test_other_transfer_syntaxes_are_named(syntax):
    with pytest.raises(errors.UnsupportedFormat, match=syntax.name.split(",")[0][:20].replace("(", ".")):
        to_image(saved(compressed(dataset(rgb()), syntax, b"\xff\xd8" + bytes(100))))


def test_a_deflated_file_is_refused_before_it_is_unpacked():
    ds = dataset(rgb())
    ds.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    whole = saved(ds)
    meta = whole[: 132 + 12 + int.from_bytes(whole[140:144], "little")]
    bomb = meta + zlib.compress(bytes(2**26), 9)[2:-4]
    tracemalloc.start()
    with pytest.raises(errors.UnsupportedFormat, match="Deflated"):
        to_image(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_no_pixel_data():
    ds = dataset(rgb())
    del ds.PixelData
    with pytest.raises(errors.CorruptImage, match="no pixel data"):
        to_image(saved(ds))


def test_a_small_header_around_a_huge_picture():
    png_like = stream(Image.new("L", (5_000, 5_000)), "JPEG")
    ds = compressed(dataset(rgb().convert("L"), "MONOCHROME2"), uid.JPEGBaseline8Bit, png_like)
    with pytest.raises(errors.CorruptImage, match="says 60 x 45, its JPEG stream 5000 x 5000"):
        to_image(saved(ds))


def test_too_many_bytes():
    head = saved(dataset(rgb()))
    with pytest.raises(errors.ImageTooLarge, match="DICOM file has 144.1 MiB; the limit is 144 MiB"):
        to_image(head + bytes(files.MAX_FILE_BYTES - len(head) + 1))


def test_too_many_attributes():
    """A million empty ones would be parsed for minutes."""
    ds = dataset(rgb())
    del ds.PixelData
    empty = b"\x51\0\1\x10UN" + bytes(6)
    with pytest.raises(errors.ImageTooLarge, match="no pixels in its first 4 MiB"):
        to_image(saved(ds) + empty * 1_000_000)


def test_what_follows_the_pixels_is_not_read():
    """Four million empty attributes would take a minute."""
    data = saved(dataset(rgb())) + bytes(2**25)
    start = time.monotonic()
    assert (np.asarray(to_image(data)) == np.asarray(rgb())).all()
    assert time.monotonic() - start < 5


def test_too_many_compressed_bytes():
    frame = stream(rgb(), "JPEG") + bytes(contract.MAX_ENCODED_BYTES)
    with pytest.raises(errors.ImageTooLarge, match="limit is 20 MiB"):
        to_image(saved(compressed(dataset(rgb(), "YBR_FULL_422"), uid.JPEGBaseline8Bit, frame)))


def test_a_photograph_larger_than_20_mib_uncompressed_is_read():
    """The limit of what is sent does not bind what is only read."""
    pixels = np.zeros((2_700, 2_700, 3), np.uint8)
    data = saved(dataset(pixels))
    assert len(data) > contract.MAX_ENCODED_BYTES
    assert len(images.encoded(data)) < 10_000


def test_empty_and_foreign_bytes(jpeg):
    with pytest.raises(errors.EmptyImage):
        to_image(b"")
    with pytest.raises(errors.UnsupportedFormat, match="no DICOM file header"):
        to_image(jpeg(0))
    assert not is_dicom(jpeg(0))
