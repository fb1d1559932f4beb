"""``--sr``: a DICOM structured report of each DICOM image, and of nothing else."""

import csv
import json

import click.testing
import numpy as np
import pytest
from pydicom import Dataset, FileMetaDataset, dcmread, uid

from derma_semantics.client import DermaClient
from derma_semantics.commands import cli
from derma_semantics.imaging.synthetic import draw

STUDY = "1.2.826.0.1.3680043.8.498.1"


class FakeTransport:
    def infer(self, image, timeout, request_id):
        return {
            "PROBABILITIES": np.array([0.7, *[0.05] * 6], np.float32),
            "RISK": np.array([0.8], np.float32),
            "TRIAGE": np.array([2], np.int32),
            "PREDICTION_SET": np.array([True, *[False] * 6]),
            "EMBEDDING": np.ones(4, np.float32),
            "BUNDLE": np.frombuffer(b"\xab" * 32, np.uint8),
        }

    def network(self, timeout):
        return {"bundle_name": "mini", "bundle_digest": "ab" * 32, "precision": "fp32", "version": "3"}

    def close(self):
        pass


def write_dicom(path, study=STUDY):
    picture = draw(0, (64, 48)).image
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"{STUDY}.3"
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = uid.DermoscopicPhotographyImageStorage
    ds.SeriesInstanceUID, ds.StudyInstanceUID = f"{STUDY}.2", study
    ds.PatientName, ds.PatientID, ds.Modality = "Seacole^Mary", "PAT-7", "DMS"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PlanarConfiguration = picture.height, picture.width, 3, 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation, ds.PhotometricInterpretation = 7, 0, "RGB"
    ds.PixelData = picture.tobytes()
    ds.save_as(path, enforce_file_format=True)


@pytest.fixture
def photos(tmp_path):
    """A DICOM file, a JPEG, and a DICOM file that no report can refer to."""
    folder = tmp_path / "photos"
    folder.mkdir()
    write_dicom(folder / "a.dcm")
    draw(1, (64, 48)).image.save(folder / "b.jpg")
    write_dicom(folder / "c.dcm", study="")
    return folder


@pytest.mark.parametrize("command", ["bulk", "classify"])
def test_reports(photos, tmp_path, command):
    arguments = [command, photos, "--sr", tmp_path / "reports", "--json"]
    if command == "bulk":
        arguments += ["--out", tmp_path / "out.jsonl"]
    result = click.testing.CliRunner().invoke(
        cli.main,
        list(map(str, arguments)),
        obj=lambda url, **_: DermaClient(url, timeout=10, transport=FakeTransport()),
    )
    assert result.exit_code == 1, result.output
    (path,) = (tmp_path / "reports").iterdir()
    report = dcmread(path)
    assert (report.Modality, report.StudyInstanceUID, report.PatientID) == ("SR", STUDY, "PAT-7")
    if command == "bulk":
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        with (tmp_path / "out.jsonl.errors.csv").open(newline="") as file:
            errors = list(csv.DictReader(file))
    else:
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        rows = [line for line in lines if "error" not in line]
        errors = [line for line in lines if "error" in line]
    assert [row["image"] for row in rows] == [str(photos / "a.dcm"), str(photos / "b.jpg")]
    assert [row["image"] for row in errors] == [str(photos / "c.dcm")]
    assert "StudyInstanceUID" in errors[0]["message"]
    assert "Seacole" not in result.output + json.dumps(rows + errors)
