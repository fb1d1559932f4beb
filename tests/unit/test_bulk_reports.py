"""``--sr``: a DICOM structured report of each DICOM image; no answer is lost to one."""

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


def derma(*arguments):
    return click.testing.CliRunner().invoke(
        cli.main,
        list(map(str, arguments)),
        obj=lambda url, **_: DermaClient(url, timeout=10, transport=FakeTransport()),
    )


@pytest.mark.parametrize("command", ["bulk", "classify"])
def test_reports(photos, tmp_path, command):
    arguments = [command, photos, "--sr", tmp_path / "reports", "--json"]
    if command == "bulk":
        arguments += ["--out", tmp_path / "out.jsonl"]
    result = derma(*arguments)
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
    assert [row["image"] for row in rows] == [str(photos / name) for name in ("a.dcm", "b.jpg", "c.dcm")]
    assert {row["risk"] for row in rows} == {np.float32(0.8)}
    if command == "bulk":
        assert [(row["image"], row["error"]) for row in errors] == [(str(photos / "c.dcm"), "NotReported")]
        assert "report" not in rows[2]
        told = errors[0]["message"]
        summary = json.loads(result.stdout)
        assert (summary["images"], summary["failed"], summary["unreported"]) == (3, 0, 1)
    else:
        assert errors == [] and [set(row) & {"report"} for row in rows] == [set(), set(), {"report"}]
        told = rows[2]["report"]
    assert "no report was written" in told and "StudyInstanceUID" in told
    assert "Seacole" not in result.output + json.dumps(rows + errors)


def test_people_see_the_answer_and_why_it_has_no_report(photos, tmp_path):
    blocked = tmp_path / "reports"
    blocked.touch()
    result = derma("classify", photos / "a.dcm", "--sr", blocked / "more")
    assert result.exit_code == 1
    assert "triage urgent" in result.stdout
    assert "answered, but no report was written" in result.stderr


def test_what_an_earlier_call_could_not_report_stays_listed(photos, tmp_path):
    """The images are not asked again, and the table has no word of it."""
    arguments = ("bulk", photos, "--sr", tmp_path / "reports", "--out", tmp_path / "out.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("derma_semantics.bulk.run.write_table", interrupted)
        assert derma(*arguments).exit_code == 130
    result = derma(*arguments)
    assert result.exit_code == 1
    assert "1 answered, but without their report: see" in result.stdout
    with (tmp_path / "out.jsonl.errors.csv").open(newline="") as file:
        (error,) = csv.DictReader(file)
    assert (error["image"], error["error"]) == (str(photos / "c.dcm"), "NotReported")
    assert len(list((tmp_path / "reports").iterdir())) == 1


def interrupted(*_, **__):
    raise KeyboardInterrupt
