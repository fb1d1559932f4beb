"""What ``derma bulk`` writes: the table in each format, the list of errors, the summary and the bar."""

import csv
import errno
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

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
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "photos"]


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
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv.journal", "photos"]
    assert bulk().exit_code == 0
    assert numbers(rows("out.csv")) == list(range(IMAGES))
