"""``derma bulk`` against a real Triton, killed on the way."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from derma_semantics.domain.conditions import CODES

IMAGES = 200


@pytest.fixture(scope="module")
def photos(tmp_path_factory, jpeg):
    """Drawn pictures, and two files that are none."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(IMAGES):
        (folder / f"{number:04d}.jpg").write_bytes(jpeg(number))
    (folder / "bad.jpg").write_bytes(b"no picture")
    (folder / "cut.jpg").write_bytes(jpeg(0)[:3000])
    return folder


@pytest.fixture(scope="module")
def whole(service, photos, tmp_path_factory):
    """The table of a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "whole.jsonl"
    done = bulk(service, photos, out).communicate(timeout=120)
    assert json.loads(done[0])["complete"], done[1]
    return read(out)


def bulk(service, photos, out, *options):
    command = [sys.executable, "-m", "derma_semantics", "bulk", photos, "--out", out, "--json", *options]
    env = {**os.environ, "DERMA_URL": service.url}
    return subprocess.Popen(
        [*map(str, command)], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def same(rows, whole):
    assert [row["image"] for row in rows] == [row["image"] for row in whole]
    for row, expected in zip(rows, whole, strict=True):
        assert row.keys() == expected.keys()
        assert row["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)
        assert (row["triage"], row["bundle_digest"]) == (expected["triage"], expected["bundle_digest"])


def test_killed_twice_it_ends_complete(until, service, photos, whole, tmp_path):
    """SIGKILL, which leaves a process no time; every image once, as if nothing had happened."""
    out, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    for answered in (40, 110):
        process = bulk(service, photos, out, "--in-flight", "4")
        until(lambda: lines(journal) >= answered or process.poll() is not None, 60, "it has answers")  # noqa: B023
        process.kill()
        _, stderr = process.communicate(timeout=10)
        assert process.returncode == -signal.SIGKILL, stderr
        assert not out.exists()
    kept = lines(journal)
    assert 110 <= kept < IMAGES
    process = bulk(service, photos, out)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, stderr  # two files are no images
    summary = json.loads(stdout)
    assert (summary["complete"], summary["resumed"], summary["answered"]) == (True, kept, IMAGES - kept)
    same(read(out), whole)
    with (tmp_path / "out.jsonl.errors.csv").open(newline="") as file:
        errors = {Path(row["image"]).name: row["error"] for row in csv.DictReader(file)}
    assert errors == {"bad.jpg": "UnsupportedFormat", "cut.jpg": "CorruptImage"}
    assert not journal.exists()


def test_ctrl_c_ends_it_at_once(until, service, photos, tmp_path):
    out, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    process = bulk(service, photos, out)
    until(lambda: lines(journal) >= 20, 60, "it has answers")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=10)
    assert process.returncode == 130, stderr
    assert "the same command goes on" in stderr and "Traceback" not in stderr
    assert json.loads(stdout)["answered"] == lines(journal) < IMAGES


def test_parquet_holds_the_same(service, photos, whole, tmp_path):
    import pyarrow.parquet as pq

    process = bulk(service, photos, tmp_path / "out.parquet", "--embeddings")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, stderr
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    norms = [sum(value**2 for value in row.pop("embedding")) for row in rows]
    assert norms == pytest.approx([1.0] * IMAGES, abs=1e-4)
    nested = [{**row, "probabilities": {code: row[code] for code in CODES}} for row in rows]
    same([{key: row[key] for key in whole[0]} for row in nested], whole)


def test_a_service_that_is_not_there(photos, tmp_path):
    command = ["bulk", photos, "--out", tmp_path / "out.csv", "--url", "127.0.0.1:1", "--timeout", "5"]
    done = subprocess.run(
        [sys.executable, "-m", "derma_semantics", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert "127.0.0.1:1" in done.stderr and "make serve" in done.stderr
    assert [*tmp_path.iterdir()] == []
