"""A DICOM file gets the answer that its picture gets, through the client and the command line."""

import io
import json

import highdicom
import numpy as np
import pytest
from pydicom import Dataset, FileMetaDataset, dcmread, dcmwrite, uid
from pydicom.encaps import encapsulate

from derma_semantics.domain import errors
from derma_semantics.imaging.dicom import write_report
from derma_semantics.imaging.synthetic import draw

PATIENT = "Nightingale^Florence"


def photograph(pixels, frame=None):
    """A DICOM file: ``pixels`` uncompressed, or ``frame``, their JPEG."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit if frame else uid.ExplicitVRLittleEndian
    ds.SOPClassUID = uid.DermoscopicPhotographyImageStorage
    ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID = (uid.generate_uid() for _ in range(3))
    ds.PatientName, ds.PatientID = PATIENT, "PAT-18200512"
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel, ds.PlanarConfiguration, ds.PixelRepresentation = 3, 0, 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PhotometricInterpretation = "YBR_FULL_422" if frame else "RGB"
    ds.PixelData = encapsulate([frame]) if frame else pixels.tobytes()
    ds["PixelData"].VR = "OB"
    file = io.BytesIO()
    dcmwrite(file, ds, enforce_file_format=True)
    return file.getvalue()


def stored(image, format):
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def probabilities(diagnosis):
    return [p for _, p in sorted(diagnosis.to_dict()["probabilities"].items())]


@pytest.mark.parametrize("size", [(600, 450), (300, 900)])
def test_dicom_and_png_get_the_same_answer(client, size):
    image = draw(3, size).image
    dicom = client.classify(photograph(np.asarray(image)))
    png = client.classify(stored(image, "PNG"))
    assert probabilities(dicom) == pytest.approx(probabilities(png), abs=1e-6)
    assert (dicom.triage, dicom.prediction_set) == (png.triage, png.prediction_set)
    assert dicom.embedding == pytest.approx(png.embedding, abs=1e-6)


def test_a_jpeg_in_dicom_and_alone_get_the_same_answer(client):
    image = draw(4).image
    jpeg = stored(image, "JPEG")
    dicom = client.classify(photograph(np.asarray(image), jpeg))
    assert probabilities(dicom) == pytest.approx(probabilities(client.classify(jpeg)), abs=1e-6)


def test_a_bad_file_fails_alone(client):
    good = photograph(np.asarray(draw(5).image))
    bad = good[: len(good) // 2]
    first, second, third = client.classify([good, bad, good], return_exceptions=True)
    assert isinstance(second, errors.CorruptImage)
    assert probabilities(first) == pytest.approx(probabilities(third), abs=1e-6)


def test_the_report_holds_the_answer(client, tmp_path):
    data = photograph(np.asarray(draw(6).image))
    diagnosis = client.classify(data)
    document = highdicom.sr.ComprehensiveSR.from_dataset(dcmread(write_report(data, diagnosis, tmp_path)))
    (group,) = document.content.get_image_measurement_groups()
    found = {m.name.value: m.value for m in group.get_measurements()}
    assert found.pop("RISK") == pytest.approx(diagnosis.risk)
    assert found == pytest.approx({f"P_{f.condition.code}": f.probability for f in diagnosis.differential})
    evaluations = [(e.name.value, e.value.meaning) for e in group.get_qualitative_evaluations()]
    assert ("TRIAGE", diagnosis.triage.name.capitalize()) in evaluations
    assert ("TOP", diagnosis.top.condition.name) in evaluations
    assert document.PatientName == PATIENT


def test_the_command_line_takes_dicom(derma, tmp_path):
    image = draw(7).image
    (tmp_path / "a.dcm").write_bytes(photograph(np.asarray(image)))
    image.save(tmp_path / "a.png")
    done = derma("classify", tmp_path / "a.dcm", tmp_path / "a.png", "--json")
    assert done.returncode == 0, done.stderr
    dicom, png = (json.loads(line) for line in done.stdout.splitlines())
    assert dicom["probabilities"] == pytest.approx(png["probabilities"], abs=1e-6)
    assert "Nightingale" not in done.stdout + done.stderr
