"""DICOM in: the pixels that were stored, in every kind and coding."""

import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.pixels import convert_color_space

from derma_semantics.imaging.dicom import to_image
from derma_semantics.imaging.preprocess import decode
from tests.unit.photographs import DERMOSCOPY, NAME, compressed, dataset, rgb, saved, stream


def pixels_of(ds):
    image = to_image(saved(ds))
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize(
    "sop_class",
    [DERMOSCOPY, uid.VLPhotographicImageStorage, uid.SecondaryCaptureImageStorage],
    ids=lambda value: uid.UID(value).keyword,
)
def test_the_three_kinds_of_photograph(sop_class):
    assert (pixels_of(dataset(rgb(), SOPClassUID=sop_class)) == np.asarray(rgb())).all()


@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
)
def test_uncompressed_in_every_byte_order(syntax):
    ds = dataset(rgb())
    ds.file_meta.TransferSyntaxUID = syntax
    ds["PixelData"].VR = "OW" if syntax == uid.ImplicitVRLittleEndian else "OB"
    assert (pixels_of(ds) == np.asarray(rgb())).all()


def test_planes_of_colour():
    planes = np.asarray(rgb()).transpose(2, 0, 1).tobytes()
    assert (pixels_of(dataset(rgb(), PlanarConfiguration=1, PixelData=planes)) == np.asarray(rgb())).all()


def test_ybr_full():
    ybr = convert_color_space(np.asarray(rgb()), "RGB", "YBR_FULL")
    difference = pixels_of(dataset(ybr, "YBR_FULL")).astype(int) - np.asarray(rgb())
    assert abs(difference).max() <= 2


def test_ybr_422_halves_the_colours_of_a_row():
    """Stored as Y1 Y2 Cb Cr: two pixels share a colour."""
    even = np.asarray(rgb()).repeat(2, axis=1)
    ybr = convert_color_space(even, "RGB", "YBR_FULL")
    stored = np.stack([ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]], axis=-1)
    difference = pixels_of(dataset(even, "YBR_FULL_422", PixelData=stored.tobytes())).astype(int) - even
    assert abs(difference).max() <= 2


@pytest.mark.parametrize(("dtype", "stored"), [(np.uint8, 8), (np.uint16, 12), (np.uint16, 16)])
def test_grey_keeps_its_high_bits(dtype, stored):
    grey = np.asarray(rgb().convert("L"))
    values = grey.astype(dtype) << (stored - 8)
    bright = pixels_of(dataset(values, "MONOCHROME2", BitsStored=stored, HighBit=stored - 1))
    dark = pixels_of(dataset(values, "MONOCHROME1", BitsStored=stored, HighBit=stored - 1))
    assert (bright == grey[..., None]).all()
    assert (dark == 255 - grey[..., None]).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_palette(bits):
    image = rgb().quantize(64)
    table = np.array(image.getpalette()[: 64 * 3], np.uint16 if bits == 16 else np.uint8).reshape(64, 3)
    luts = {}
    for channel, colour in enumerate(("Red", "Green", "Blue")):
        entries = table[:, channel] << (bits - 8)
        luts[f"{colour}PaletteColorLookupTableDescriptor"] = [64, 0, bits]
        luts[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    found = pixels_of(dataset(image, "PALETTE COLOR", **luts))
    assert (found == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("colours", ["YBR_FULL_422", "YBR_FULL"])
def test_a_jpeg_gives_the_pixels_of_its_file(colours):
    jpeg = stream(rgb(), "JPEG", quality=90)
    ds = compressed(dataset(rgb(), colours), uid.JPEGBaseline8Bit, jpeg)
    assert (pixels_of(ds) == np.asarray(decode(jpeg))).all()


def test_a_jpeg_of_rgb_components_is_not_taken_for_ybr():
    """Without JFIF or Adobe markers, libjpeg would guess from the components' names."""
    jpeg = stream(rgb(), "JPEG", quality=95, keep_rgb=True)
    bare = jpeg.replace(b"R\x11\0G\x11\0B\x11\0", b"\1\x11\0\2\x11\0\3\x11\0")
    bare = bare.replace(b"\x03R\0G\0B\0", b"\x03\1\0\2\0\3\0")
    start = bare.index(b"\xff\xee") if b"\xff\xee" in bare[:40] else None
    if start is not None:
        length = int.from_bytes(bare[start + 2 : start + 4], "big")
        bare = bare[:start] + bare[start + 2 + length :]
    assert b"Adobe" not in bare
    assert bare != jpeg
    found = pixels_of(compressed(dataset(rgb()), uid.JPEGBaseline8Bit, bare))
    assert abs(found.astype(int) - np.asarray(rgb())).mean() < 3


def test_grey_jpeg():
    jpeg = stream(rgb().convert("L"), "JPEG")
    ds = compressed(dataset(rgb().convert("L"), "MONOCHROME2"), uid.JPEGBaseline8Bit, jpeg)
    assert (pixels_of(ds) == np.asarray(decode(jpeg))).all()


@pytest.mark.parametrize("colours", ["YBR_RCT", "RGB"])
def test_lossless_jpeg_2000(colours):
    frame = stream(rgb(), "JPEG2000", irreversible=False, no_jp2=True, mct=int(colours != "RGB"))
    ds = compressed(dataset(rgb(), colours), uid.JPEG2000Lossless, frame)
    assert (pixels_of(ds) == np.asarray(rgb())).all()


def test_lossy_jpeg_2000():
    frame = stream(rgb(), "JPEG2000", irreversible=True, no_jp2=True, quality_layers=[5])
    found = pixels_of(compressed(dataset(rgb(), "YBR_ICT"), uid.JPEG2000, frame))
    assert abs(found.astype(int) - np.asarray(rgb())).mean() < 4


def test_jpeg_2000_of_ybr_components():
    ybr = Image.fromarray(convert_color_space(np.asarray(rgb()), "RGB", "YBR_FULL"))
    frame = stream(ybr, "JPEG2000", irreversible=False, no_jp2=True, mct=0)
    found = pixels_of(compressed(dataset(rgb(), "YBR_FULL"), uid.JPEG2000Lossless, frame))
    assert abs(found.astype(int) - np.asarray(rgb())).max() <= 2


def test_16_bit_grey_jpeg_2000():
    grey = np.asarray(rgb().convert("L")).astype(np.uint16) << 8
    frame = stream(Image.fromarray(grey), "JPEG2000", irreversible=False, no_jp2=True)
    found = pixels_of(compressed(dataset(grey, "MONOCHROME2"), uid.JPEG2000Lossless, frame))
    assert (found == (grey >> 8)[..., None]).all()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_rle(mode):
    ds = dataset(rgb().convert(mode), "RGB" if mode == "RGB" else "MONOCHROME2")
    ds.compress(uid.RLELossless, generate_instance_uid=False)
    assert (pixels_of(ds) == np.asarray(rgb().convert(mode).convert("RGB"))).all()


def test_the_exif_orientation_inside_a_jpeg_does_not_count():
    """A DICOM file says itself how its picture stands; viewers do not look further."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = NAME
    jpeg = stream(rgb(), "JPEG", exif=exif)
    data = saved(compressed(dataset(rgb(), "YBR_FULL_422"), uid.JPEGBaseline8Bit, jpeg))
    assert to_image(data).size == rgb().size
    assert not to_image(data).getexif()
