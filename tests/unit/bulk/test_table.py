"""What ``derma bulk`` writes: the table in each format, the list of errors, the summary and the bar."""

import csv
import errno
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from derma_semantics.bulk.cells import cell
from tests.unit.bulk.conftest import DIGEST, IMAGES, numbers


def test_every_image_once_in_order(bulk, transport, rows, photos, tmp_path):
    result = bulk("--json")
    assert result.exit_code == 0, result.output
    assert sorted(transport.sent) == list(range(IMAGES))
    assert numbers(rows("out.csv")) == list(range(IMAGES))
    row = rows("out.csv")[69]
    assert row["image"] == str(photos / "more" / "0069.PNG")
    assert (row["condition"], row["triage"], row["prediction_set"]) == ("VASC", "routine", ["VASC"])
    assert (row["risk"], row["bundle"], row["bundle_digest"]) == (np.float32(0.69), "mini", DIGEST)
    summary = json.loads(result.stdout)
    assert (summary["images"], summary["answered"], summary["failed"]) == (IMAGES, IMAGES, 0)
    assert summary["complete"] and summary["errors"] is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "out.csv.skipped.csv", "photos"]


def test_summary_for_people(bulk, photos):
    (photos / "0003.jpg").write_bytes(b"")
    result = bulk()
    assert "69 images in" in result.stdout and "69 answered now, 0 before" in result.stdout
    assert "1 failed: see" in result.stdout and "out.csv.errors.csv" in result.stdout
    assert "Not a medical device" in result.stdout
    assert result.stderr == ""  # no bar where stderr is no terminal


def test_formats_hold_the_same(bulk, rows):
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert bulk(out=name).exit_code == 0
    assert rows("a.csv") == rows("a.jsonl") == rows("a.parquet")
    order = [*rows("a.jsonl")[0]]
    assert order[:3] == ["image", "condition", "probabilities"]


def test_embeddings(bulk, rows):
    for name in ("a.jsonl", "a.parquet"):
        assert bulk("--embeddings", out=name).exit_code == 0
    assert rows("a.jsonl") == rows("a.parquet")
    assert rows("a.parquet")[9]["embedding"] == [np.float32(9 / 7)] * 4
    result = bulk("--embeddings")
    assert result.exit_code == 2 and "CSV cannot hold embeddings" in result.output


def test_row_groups_are_bounded(bulk, monkeypatch, tmp_path):
    monkeypatch.setattr("derma_semantics.bulk.table.ROW_GROUP", 32)
    assert bulk(out="a.parquet").exit_code == 0
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert (file.num_row_groups, file.metadata.num_rows) == (3, IMAGES)


def test_bad_files_are_listed_and_never_in_the_table(bulk, photos, rows, tmp_path):
    (photos / "0001.jpg").write_bytes(b"bad")
    (photos / "0002.jpg").write_bytes(b"")
    (photos / "0003.jpg").write_bytes(b"x" * (20 * 2**20 + 1))
    (photos / "0004.jpg").unlink()
    (photos / "0004.jpg").symlink_to("nowhere")
    result = bulk("--json")
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    assert (summary["complete"], summary["images"], summary["failed"]) == (True, IMAGES - 4, 4)
    assert numbers(rows("out.csv")) == [0, *range(5, IMAGES)]
    with Path(summary["errors"]).open(newline="") as file:
        errors = {Path(row["image"]).stem: row for row in csv.DictReader(file)}
    assert {name: row["error"] for name, row in errors.items()} == {
        "0001": "CorruptImage",
        "0002": "EmptyImage",
        "0003": "ImageTooLarge",
        "0004": "FileNotFoundError",
    }
    assert errors["0001"]["message"] == "the JPEG is truncated"
    assert "20 MiB" in errors["0003"]["message"]


@pytest.mark.parametrize(
    ("out", "message"),
    [("out.xlsx", ".parquet, .csv, .jsonl"), ("nowhere/out.csv", "does not exist")],
)
def test_outputs_that_cannot_be(bulk, transport, out, message):
    result = bulk(out=out)
    assert result.exit_code == 2 and message in result.output
    assert transport.sent == []


def test_parquet_names_its_extra(bulk, monkeypatch):
    monkeypatch.setattr("derma_semantics.bulk.table.find_spec", lambda name: None)
    result = bulk(out="out.parquet")
    assert result.exit_code == 2 and "derma-semantics[table]" in result.output


def test_a_table_that_cannot_be_written_leaves_the_journal(bulk, rows, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        result = bulk()
    assert result.exit_code == 2 and "No space left" in result.output
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert kept == ["out.csv.journal", "out.csv.skipped.csv", "photos"]
    assert bulk().exit_code == 0
    assert numbers(rows("out.csv")) == list(range(IMAGES))


FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1")


def test_no_name_is_a_formula_in_csv(bulk, photos, rows, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    for number, name in enumerate(FORMULAS):
        (photos / f"{name}.jpg").write_bytes(b"%d" % number if number else b"bad")
    names = [f"{name}.jpg" for name in FORMULAS]
    listed = "\0".join(names)
    for out in ("a.csv", "a.jsonl", "a.parquet"):
        assert bulk(sources=("-",), stdin=listed, out=out).exit_code == 1
    assert [row["image"] for row in rows("a.csv")] == [f"'{name}" for name in names[1:]]
    for out in ("a.jsonl", "a.parquet"):
        assert [row["image"] for row in rows(out)] == names[1:]
    assert [row["risk"] for row in rows("a.csv")] == [row["risk"] for row in rows("a.jsonl")]
    with (tmp_path / "a.csv.errors.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["'=1+1.jpg"]


def test_numbers_are_no_formulas():
    assert [cell(value) for value in (-1.5, True, ["MEL", "NV"], "-1")] == [-1.5, "true", "MEL NV", "'-1"]


def test_what_is_no_image_is_counted_and_listed(bulk, photos, tmp_path):
    (photos / "more" / "Report.PDF").write_bytes(b"%PDF")
    (photos / "more" / "=README").write_bytes(b"")
    (photos / "._0001.jpg").write_bytes(b"\0\5\x16\7")
    result = bulk("--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["skipped"] == {".txt": 1, ".pdf": 1, "": 1}
    with Path(summary["skipped_list"]).open(newline="") as file:
        listed = [row["file"] for row in csv.DictReader(file)]
    more = photos / "more"
    assert sorted(listed) == sorted(
        [str(photos / "notes.txt"), str(more / "Report.PDF"), str(more / "=README")]
    )
    told = bulk("--overwrite").stdout
    assert "3 files are no images (1 .txt, 1 without suffix, 1 .pdf): see" in told
    for path in listed:
        Path(path).unlink()
    assert json.loads(bulk("--json", "--overwrite").stdout)["skipped_list"] is None
    assert not (tmp_path / "out.csv.skipped.csv").exists()
