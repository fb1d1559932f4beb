"""``derma bulk`` over an injected transport: what it asks, writes, and how it goes on."""

import csv
import errno
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
from pathlib import Path

import click.testing
import numpy as np
import pyarrow.parquet as pq
import pytest

from derma_semantics import cli
from derma_semantics.bulk import images
from derma_semantics.client import DermaClient
from derma_semantics.conditions import CODES
from derma_semantics.errors import (
    AccessDenied,
    CorruptImage,
    DeadlineExceeded,
    Overloaded,
    ServiceUnavailable,
)

DIGEST = "ab" * 32
IMAGES = 70


class FakeTransport:
    """An image is the digits of its number; ``b"bad"`` is refused."""

    def __init__(self):
        self.digest = DIGEST
        self.fails = {}
        self.sent = []
        self.at = {}
        self.lock = threading.Lock()

    def infer(self, image, timeout, request_id):
        if image == b"bad":
            raise CorruptImage("the JPEG is truncated")
        number = int(image)
        if number in self.fails:
            raise self.fails[number]
        with self.lock:
            self.sent.append(number)
        self.at.get(number, lambda: None)()
        probabilities = np.full(7, 0.05, np.float32)
        probabilities[number % 7] = 0.7
        return {
            "PROBABILITIES": probabilities,
            "RISK": np.array([number / 100], np.float32),
            "TRIAGE": np.array([number % 3], np.int32),
            "PREDICTION_SET": probabilities > (0.5 if number % 2 else 0.01),
            "EMBEDDING": np.full(4, number / 7, np.float32),
            "BUNDLE": np.frombuffer(bytes.fromhex(self.digest), np.uint8),
        }

    def network(self, timeout):
        return {"bundle_name": "mini", "bundle_digest": DIGEST, "precision": "fp32", "version": "3"}

    def ready(self, timeout):
        return True

    def close(self):
        pass


@pytest.fixture
def transport():
    return FakeTransport()


@pytest.fixture
def photos(tmp_path):
    """Seventy images, the last ten in a folder of the folder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number in range(IMAGES):
        name = f"{number:04d}.jpg" if number < 60 else f"more/{number:04d}.PNG"
        (folder / name).write_bytes(b"%d" % number)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def bulk(transport, photos, tmp_path):
    """Run ``derma bulk`` on the photographs, or on other sources."""

    def invoke(*arguments, out="out.csv", sources=(photos,), stdin=None):
        given = ["bulk", *map(str, sources), "--out", str(tmp_path / out), *map(str, arguments)]
        return click.testing.CliRunner().invoke(
            cli.main,
            given,
            input=stdin,
            obj=lambda url, **_: DermaClient(url, timeout=1, transport=transport),  # retries end then,
        )

    return invoke


@pytest.fixture
def rows(tmp_path):
    """The rows of a table, in the shape of JSON lines."""

    def read(name):
        path = tmp_path / name
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in path.read_text().splitlines()]
        if path.suffix == ".parquet":
            return [nested(row) for row in pq.read_table(path).to_pylist()]
        with path.open(newline="") as file:
            return [nested(typed(row)) for row in csv.DictReader(file)]

    def nested(row):
        probabilities = {code: row.pop(code) for code in CODES}
        return {**row, "probabilities": probabilities}

    def typed(row):
        numbers = {key: float(row[key]) for key in (*CODES, "risk")}
        row["high_risk"] = {"true": True, "false": False}[row["high_risk"]]
        return {**row, **numbers, **{name: row[name].split() for name in ("prediction_set", "quality")}}

    return read


def numbers(rows):
    return [int(Path(row["image"]).stem) for row in rows]


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


@pytest.mark.parametrize("error", [ServiceUnavailable("host:1 is away"), Overloaded("host:1 is overloaded")])
def test_a_service_that_goes_away_ends_the_run_and_the_same_command_goes_on(
    bulk, transport, rows, tmp_path, error
):
    transport.fails[40] = error
    first = bulk("--json")
    assert first.exit_code == 3
    assert "host:1 is" in first.stderr and "the same command goes on" in first.stderr
    assert json.loads(first.stdout)["complete"] is False
    assert not (tmp_path / "out.csv").exists()
    assert len((tmp_path / "out.csv.journal").read_text().splitlines()) == 40
    transport.fails.clear()
    before = set(transport.sent)
    transport.sent.clear()
    second = bulk("--json")
    assert second.exit_code == 0, second.output
    summary = json.loads(second.stdout)
    assert (summary["resumed"], summary["answered"], summary["images"]) == (40, 30, IMAGES)
    assert numbers(rows("out.csv")) == list(range(IMAGES))
    assert sorted(transport.sent) == list(range(40, IMAGES))
    assert set(range(40)) <= before


def test_a_service_that_never_answers_in_time_counts_as_gone(bulk, transport):
    transport.fails = {n: DeadlineExceeded("no answer in time") for n in range(20, IMAGES)}
    result = bulk("--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["answered"] == 20


def test_a_token_that_expires_ends_the_run(bulk, transport, tmp_path):
    transport.fails = {n: AccessDenied("token expired") for n in range(30, IMAGES)}
    result = bulk("--json")
    assert result.exit_code == 3 and "token expired" in result.stderr
    assert json.loads(result.stdout)["answered"] == 30
    assert not (tmp_path / "out.csv.errors.csv").exists()


def test_one_late_image_is_only_an_error(bulk, transport):
    transport.fails = {n: DeadlineExceeded("no answer in time") for n in range(0, IMAGES, 2)}
    result = bulk("--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["failed"] == IMAGES / 2


def test_a_cut_line_is_asked_again(bulk, transport, rows, tmp_path):
    transport.fails[40] = ServiceUnavailable("away")
    bulk()
    journal = tmp_path / "out.csv.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-30])  # as a power cut leaves it
    transport.fails.clear()
    transport.sent.clear()
    assert bulk().exit_code == 0
    assert sorted(transport.sent) == list(range(39, IMAGES))
    assert numbers(rows("out.csv")) == list(range(IMAGES))


def test_a_damaged_journal_is_named(bulk, transport, tmp_path):
    transport.fails[40] = ServiceUnavailable("away")
    bulk()
    journal = tmp_path / "out.csv.journal"
    lines = journal.read_text().splitlines()
    lines[7] = lines[7][:50]
    journal.write_text("\n".join(lines) + "\n")
    result = bulk()
    assert result.exit_code == 2
    assert "out.csv.journal is damaged in line 8" in result.output


def test_failed_images_are_asked_again_when_it_goes_on(bulk, transport, photos, tmp_path):
    (photos / "0003.jpg").write_bytes(b"bad")
    transport.fails[40] = ServiceUnavailable("away")
    assert bulk().exit_code == 3
    assert "0003.jpg,CorruptImage" in (tmp_path / "out.csv.errors.csv").read_text()
    (photos / "0003.jpg").write_bytes(b"3")
    transport.fails.clear()
    result = bulk("--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["images"] == IMAGES
    assert not (tmp_path / "out.csv.errors.csv").exists()


def test_ctrl_c_keeps_what_was_answered(bulk, transport, rows, tmp_path):
    transport.at[50] = lambda: os.kill(os.getpid(), signal.SIGINT)
    result = bulk("--json")
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr
    kept = len((tmp_path / "out.csv.journal").read_text().splitlines())
    assert json.loads(result.stdout)["answered"] == kept < IMAGES
    transport.at.clear()
    assert bulk().exit_code == 0
    assert numbers(rows("out.csv")) == list(range(IMAGES))


def test_a_changed_file_does_not_keep_its_old_answer(bulk, transport, photos, tmp_path, rows):
    transport.at[50] = lambda: os.kill(os.getpid(), signal.SIGINT)
    assert bulk().exit_code == 130
    transport.at.clear()
    transport.sent.clear()
    changed = photos / "0003.jpg"
    changed.write_bytes(b"61")
    result = bulk()
    assert result.exit_code == 2
    assert f"{changed} is not the file that {tmp_path / 'out.csv.journal'} has the answer of" in result.output
    (tmp_path / "out.csv.journal").unlink()
    assert bulk(out="out.jsonl").exit_code == 0
    assert rows("out.jsonl")[3]["risk"] == pytest.approx(0.61)
    assert "file" not in rows("out.jsonl")[3]


def test_answers_of_two_bundles_are_never_mixed(bulk, transport, tmp_path, monkeypatch):
    transport.at[40] = lambda: setattr(transport, "digest", "cd" * 32)
    first = bulk()
    assert first.exit_code == 2
    assert "answers of bundle abababababab, but the service now answers with cdcdcdcdcdcd" in first.output
    assert "give another --out" in first.output
    kept = (tmp_path / "out.csv.journal").read_text()
    assert 40 - 32 <= len(kept.splitlines()) < IMAGES and "cdcd" not in kept  # 32 are under way
    network = {**transport.network(1), "bundle_digest": "cd" * 32}
    monkeypatch.setattr(transport, "network", lambda timeout: network)
    transport.sent.clear()
    assert bulk().exit_code == 2
    assert transport.sent == []


def test_embeddings_cannot_come_later(bulk, transport):
    transport.fails[40] = ServiceUnavailable("away")
    bulk(out="a.jsonl")
    result = bulk("--embeddings", out="a.jsonl")
    assert result.exit_code == 2 and "begun without embeddings" in result.output


def test_two_runs_on_one_output_refuse_each_other(bulk, transport, tmp_path):
    with (tmp_path / "out.csv.journal").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        result = bulk()
    assert result.exit_code == 2
    assert "out.csv.journal is in use" in result.output
    assert transport.sent == []


def test_a_finished_table_is_not_replaced_unasked(bulk, transport, rows):
    assert bulk().exit_code == 0
    transport.sent.clear()
    result = bulk()
    assert result.exit_code == 2 and "--overwrite" in result.output
    assert transport.sent == []
    assert bulk("--overwrite").exit_code == 0
    assert len(transport.sent) == IMAGES


def test_a_kill_between_table_and_end_asks_nothing_again(bulk, transport, rows, tmp_path, monkeypatch):
    def die(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("derma_semantics.journal.Journal.remove", die)
        assert bulk().exit_code == 130
    transport.sent.clear()
    assert (tmp_path / "out.csv").exists()
    assert bulk().exit_code == 0
    assert transport.sent == []
    assert numbers(rows("out.csv")) == list(range(IMAGES))
    assert not (tmp_path / "out.csv.journal").exists()


def test_answers_to_images_that_are_gone_are_kept_and_told(bulk, transport, photos, rows):
    transport.fails[40] = ServiceUnavailable("away")
    bulk()
    transport.fails.clear()
    (photos / "0007.jpg").unlink()
    result = bulk()
    assert "1 answered before are not among the sources: kept" in result.stdout
    assert numbers(rows("out.csv")) == list(range(IMAGES))


def test_globs_files_and_duplicates(bulk, transport, photos, monkeypatch):
    monkeypatch.chdir(photos)
    sources = ("*1.jpg", "./0001.jpg", photos / "0001.jpg", "more/../0002.jpg", "0002.jpg", "**/*9.PNG")
    assert bulk(sources=sources).exit_code == 0
    assert sorted(transport.sent) == [1, 2, 11, 21, 31, 41, 51, 69]


def test_folders_of_folders_only_on_request(bulk, transport):
    assert bulk("--no-recursive").exit_code == 0
    assert sorted(transport.sent) == list(range(60))


def test_list_on_stdin(bulk, transport, photos, tmp_path):
    names = [
        photos / "0005.jpg",
        photos / "0006.jpg",
        photos / "nothing.jpg",
        photos / "0005.jpg",
        "",
        photos / "more",
    ]
    result = bulk("--json", sources=("-",), stdin="\n".join(map(str, names)))
    assert result.exit_code == 1
    assert sorted(transport.sent) == [5, 6, *range(60, 70)]
    assert "nothing.jpg,FileNotFoundError" in (tmp_path / "out.csv.errors.csv").read_text()
    empty = bulk(sources=("-",), stdin="\n", out="other.csv")
    assert empty.exit_code == 2 and "names no image" in empty.output


def test_names_that_are_no_utf_8(bulk, photos, rows, tmp_path):
    name = os.fsencode(photos) + b"/caf\xe9.jpg"
    Path(os.fsdecode(name)).write_bytes(b"80")
    bad = os.fsencode(photos) + b"/bad\xe9.jpg"
    Path(os.fsdecode(bad)).write_bytes(b"bad")
    for out in ("a.csv", "a.jsonl", "a.parquet"):
        assert bulk(out=out).exit_code == 1
        assert [row["image"] for row in rows(out) if "caf" in row["image"]] == [f"{photos}/caf\\xe9.jpg"]
        assert f"{photos}/bad\\xe9.jpg" in (tmp_path / f"{out}.errors.csv").read_text()


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["nothing.jpg"], "nothing.jpg does not exist"),
        (["*.nothing"], "*.nothing matches nothing"),
        (["empty"], "empty holds no image"),
    ],
)
def test_sources_without_images_are_refused_before_anything(
    bulk, transport, photos, monkeypatch, tmp_path, sources, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    result = bulk(sources=[photos, *sources])
    assert result.exit_code == 2
    assert message in result.output
    assert transport.sent == []


def test_an_unreadable_folder_is_named(bulk, photos, monkeypatch):
    scandir = os.scandir  # root, who may run the tests, can read every folder

    def deny(path):
        if Path(path).name == "more":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    result = bulk()
    assert result.exit_code == 2
    assert "Permission denied" in result.output and "photos/more" in result.output


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


def test_images_are_found_lazily(tmp_path):
    """A list that never ends, e.g. from `tail -f`, can be begun."""

    def endless():
        number = 0
        while True:
            number += 1
            yield b"%d.jpg\n" % number

    names = images(["-"], listed=endless())
    assert [next(names) for _ in range(3)] == ["1.jpg", "2.jpg", "3.jpg"]


def test_a_bar_with_rate_on_a_terminal(photos, tmp_path):
    """On a real pseudo-terminal; no service listens, so the bar stays at 0."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (25, 100))
    command = [sys.executable, "-m", "derma_semantics", "bulk", photos, "--out", tmp_path / "out.csv"]
    options = ["--url", "127.0.0.1:1", "--timeout", "2"]
    done = subprocess.run(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=theirs, timeout=60, check=False
    )
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 3
    assert "0/70" in shown and "images/s" in shown
