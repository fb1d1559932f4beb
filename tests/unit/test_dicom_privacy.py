"""DICOM in: who the patient is stays here, whatever is sent, damaged, refused or logged."""

import io
import logging
import traceback
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid

from derma_semantics.domain import contract, errors
from derma_semantics.imaging import images
from derma_semantics.imaging.dicom import to_image
from tests.unit.photographs import IDENTITY, NAME, SECRETS, compressed, dataset, rgb, saved, stream


def outcome(function, argument):
    """What it returns, or the error of this package that it raises; any other error fails the test."""
    try:
        return function(argument)
    except errors.InvalidImage as error:
        return error


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
