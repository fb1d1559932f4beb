"""DICOM in: the pixels that were stored, nothing of the patient, and one error tree."""

import io
import logging
import subprocess
import sys
import time
import traceback
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset, FileMetaDataset, dcmwrite, uid
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space

from derma_semantics import contract, errors, images
from derma_semantics.dicom import files, is_dicom, to_image
from derma_semantics.preprocess import decode
from derma_semantics.synthetic import draw

DERMOSCOPY = uid.DermoscopicPhotographyImageStorage
NAME, IDENTITY, STUDY = "Nightingale^Florence", "PAT-18200512", "1.2.826.0.1.3680043.8.498.18200512"
PATIENT = {
    "PatientName": NAME,
    "PatientID": IDENTITY,
    "PatientBirthDate": "18200512",
    "StudyInstanceUID": STUDY,
    "StudyDate": "19100813",
}
SECRETS = (NAME, "Nightingale", IDENTITY, "18200512", "19100813", STUDY)


def rgb(seed=0, size=(60, 45)):
    return draw(seed, size).image


def dataset(pixels, colours="RGB", **attributes):
    """An uncompressed dermoscopic photograph of these pixels, with a patient."""
    pixels = np.asarray(pixels)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = DERMOSCOPY, uid.generate_uid()
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = colours
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = 0
    ds.PixelData = pixels.tobytes()
    for name, value in (PATIENT | attributes).items():
        setattr(ds, name, value)
    return ds


def compressed(ds, syntax, frame):
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    return ds


def saved(ds, **options):
    file = io.BytesIO()
    dcmwrite(file, ds, enforce_file_format=True, **options)
    return file.getvalue()


def stream(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def outcome(function, argument):
    """What it returns, or the error of this package that it raises; any other error fails the test."""
    try:
        return function(argument)
    except errors.InvalidImage as error:
        return error


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


# What is refused, and how it is said.


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


# Who the patient is stays here.


def test_what_is_sent_is_a_png_without_the_patient():
    sent = images.encoded(saved(dataset(rgb())))
    with Image.open(io.BytesIO(sent)) as image:
        assert image.format == "PNG"
        assert image.size == (contract.IMAGE_SIZE, contract.IMAGE_SIZE)
        assert image.info == {}
    assert not [secret for secret in SECRETS if secret.encode() in sent]
    kinds = [kind for kind in (b"IHDR", b"IDAT", b"IEND") if kind in sent]
    assert len(sent) > 1_000 and len(kinds) == 3


def test_the_same_bytes_are_sent_as_for_the_array(tmp_path):
    path = tmp_path / "lesion.dcm"
    path.write_bytes(saved(dataset(rgb(1))))
    assert images.encoded(path) == images.encoded(np.asarray(rgb(1)))


def test_a_tiff_that_is_dicom_too_is_read_as_dicom():
    ds = dataset(rgb())
    ds.preamble = b"II*\0" + bytes(124)
    assert images.encoded(saved(ds)).startswith(b"\x89PNG")


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize("meta", [True, False])
def test_a_data_set_without_file_header_is_not_sent(syntax, meta):
    """As old devices write it: it begins with the file meta information, or without even that."""
    ds = dataset(rgb())
    ds.file_meta.TransferSyntaxUID = syntax
    ds["PixelData"].VR = "OB" if syntax == uid.ExplicitVRBigEndian else "OW"
    whole = saved(ds)
    data = whole[132:] if meta else whole[132 + 12 + int.from_bytes(whole[140:144], "little") :]
    assert NAME.encode() in data
    with pytest.raises(errors.UnsupportedFormat, match="no DICOM file header"):
        images.encoded(data)


def test_a_file_that_only_calls_itself_dicom_is_not_sent(tmp_path):
    path = tmp_path / "x.DCM"
    path.write_bytes(b"\0" + saved(dataset(rgb())))
    with pytest.raises(errors.UnsupportedFormat, match="no DICOM file header"):
        images.encoded(path)


SMALL = {
    "rgb": saved(dataset(rgb(2, (40, 33)))),
    "jpeg": saved(
        compressed(
            dataset(rgb(2, (40, 33)), "YBR_FULL_422"),
            uid.JPEGBaseline8Bit,
            stream(rgb(2, (40, 33)), "JPEG"),
        )
    ),
    "j2k": saved(
        compressed(
            dataset(rgb(2, (40, 33)), "YBR_RCT"),
            uid.JPEG2000Lossless,
            stream(rgb(2, (40, 33)), "JPEG2000", no_jp2=True),
        )
    ),
}
POSITION = st.floats(0, 1, exclude_max=True)
EDIT = st.tuples(
    st.sampled_from(["flip", "cut", "insert", "delete"]), POSITION, st.binary(min_size=1, max_size=8)
)


def mutated(data, edits):
    data = bytearray(data)
    for kind, where, value in edits:
        # Squared: headers are at the front, and there is more to break.
        at = int(where * where * len(data))
        if kind == "flip":
            data[at : at + len(value)] = value
        elif kind == "cut":
            del data[max(at, 200) :]
        elif kind == "insert":
            data[at:at] = value
        else:
            del data[at : at + len(value)]
    return bytes(data)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(sorted(SMALL)), edits=st.lists(EDIT, min_size=1, max_size=4))
def test_a_damaged_file_is_read_or_refused(name, edits):
    data = mutated(SMALL[name], edits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = outcome(to_image, data)
    if isinstance(found, Image.Image):
        assert found.mode == "RGB"
        assert min(found.size) >= contract.MIN_SIDE
    else:
        assert type(found) is not errors.InvalidImage
        assert not [secret for secret in SECRETS if secret in str(found)]


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_truncated_file_is_refused(name, share):
    with pytest.raises(errors.InvalidImage):
        to_image(SMALL[name][: int(share * len(SMALL[name]))])


@pytest.mark.parametrize(
    "change", [{"Rows": 46}, {"NumberOfFrames": 3}, {"SOPClassUID": uid.CTImageStorage}, {}]
)
def test_neither_errors_nor_logs_name_the_patient(change, caplog, recwarn):
    caplog.set_level(logging.DEBUG, "pydicom")
    bad = {"PatientBirthDate": "Nightingale", "StudyDate": "18200512x", "PatientID": IDENTITY * 20}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = saved(dataset(rgb(), **bad, **change))
    caplog.clear()
    found = outcome(images.encoded, data)
    assert isinstance(found, errors.InvalidImage) == bool(change)
    said = f"{found!r}{caplog.text}" + "".join(str(warning.message) for warning in recwarn)
    if change:
        said += "".join(traceback.format_exception(found))
    assert not [secret for secret in SECRETS if secret in said]


def test_without_the_extra_the_error_names_it():
    code = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from derma_semantics import errors, images\n"
        "try: images.encoded(bytes(128) + b'DICM' + bytes(99))\n"
        "except errors.UnsupportedFormat as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'derma-semantics[dicom]'" in done.stdout


def test_images_load_no_pydicom_before_the_first_dicom_file():
    code = (
        "import sys, derma_semantics.images as i; print('pydicom' in sys.modules, 'highdicom' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
