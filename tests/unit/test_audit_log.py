"""The audit log's file: whole lines by several processes, rotation, full disks, what may be written."""

import errno
import fcntl
import json
import os
from datetime import UTC, datetime

import pytest

from derma_serving.runtime import audit_log
from derma_serving.runtime.audit_log import AuditLog, entry

IMAGE, BUNDLE = "cd" * 32, bytes.fromhex("ab" * 32)

KEYS = ("time", "request_id", "image_sha256", "bundle_digest", "probabilities", "triage", "caller")


def line(request_id="r1", caller="alice"):
    return entry(request_id, IMAGE, BUNDLE, [0.25, 0.75, 0, 0, 0, 0, 0], 2, caller)


def read(folder):
    """Lines of all files, each of which must be whole."""
    return [json.loads(one) for path in folder.glob("audit.jsonl*") for one in path.read_text().splitlines()]


def test_a_line_has_the_promised_keys(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    log.append([line()])
    (written,) = read(tmp_path)
    assert tuple(written) == KEYS
    assert written["image_sha256"] == IMAGE
    assert (written["bundle_digest"], written["triage"], written["caller"]) == ("ab" * 32, "urgent", "alice")
    assert written["probabilities"] == {
        "MEL": 0.25, "NV": 0.75, "BCC": 0, "AKIEC": 0, "BKL": 0, "DF": 0, "VASC": 0
    }  # fmt: skip
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ['x", "caller": "eve', "a\nb", "ü", "", " ", "a" * 65, "Erika Mustermann", 7, None]
)
def test_names_that_could_be_free_text_are_not_written(text):
    written = line(request_id=text, caller=text)
    assert (written["request_id"], written["caller"]) == (None, None)


def test_rotated_files_keep_apart_once_older_ones_were_moved_away(tmp_path):
    """Two in a second, and the archive has both."""
    log, archive = AuditLog(tmp_path / "audit.jsonl", max_bytes=1), tmp_path / "archive"
    archive.mkdir()
    for number in range(4):
        log.append([line(f"r{number}")])
        for older in tmp_path.glob("audit.jsonl.*"):
            assert not (archive / older.name).exists()
            older.rename(archive / older.name)
    found = [json.loads(path.read_text())["request_id"] for path in sorted(archive.iterdir())]
    assert found == ["r0", "r1", "r2"]


def test_a_name_that_is_taken_is_not_overwritten(tmp_path, monkeypatch):
    """Where the clock stands still for two rotations."""
    log = AuditLog(tmp_path / "audit.jsonl", max_bytes=1)
    lines = [line(f"r{number}") for number in range(3)]

    class Clock:
        @staticmethod
        def now(_):
            return datetime(2026, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(audit_log, "datetime", Clock)
    for one in lines:
        log.append([one])
    names = sorted(path.name.removeprefix("audit.jsonl") for path in tmp_path.iterdir())
    assert names == ["", ".20260101T000000.000000Z", ".20260101T000000.000001Z"]


def test_a_file_renamed_by_others_is_followed_by_a_new_one(tmp_path):
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.append([line("a")])
    path.rename(tmp_path / "audit.jsonl-20260101")
    log.append([line("b")])
    assert [json.loads(path.read_text())["request_id"], len(read(tmp_path))] == ["b", 2]


@pytest.mark.parametrize("renamed_by_others", [True, False])
def test_who_cannot_open_the_new_file_keeps_no_lock(tmp_path, monkeypatch, renamed_by_others):
    """As where the process has too many files open; others that write the log go on, and it too later."""
    path = tmp_path / "audit.jsonl"
    log, other = AuditLog(path, max_bytes=1), AuditLog(path, max_bytes=1)
    log.append([line("a")])
    if renamed_by_others:
        path.rename(tmp_path / "audit.jsonl-20260101")

    def too_many():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(log, "_open", too_many)
    with pytest.raises(OSError, match="Too many open files"):
        log.append([line("lost")])
    fcntl.flock(other._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the file that both had
    fcntl.flock(other._file, fcntl.LOCK_UN)
    monkeypatch.undo()
    other.append([line("b")])
    log.append([line("c")])
    assert sorted(one["request_id"] for one in read(tmp_path)) == ["a", "b", "c"]


def test_a_line_cut_short_harms_no_other(tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_text('{"time":"2026')
    AuditLog(path).append([line("b")])
    torn, whole = path.read_text().splitlines()
    assert (torn, json.loads(whole)["request_id"]) == ('{"time":"2026', "b")


def test_a_full_disk_is_an_error_and_the_next_line_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    write = os.write

    def full(file, content):
        if len(content) <= 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, content[:10])

    monkeypatch.setattr(audit_log, "_write", lambda file, content: (full(file, content), full(file, b"")))
    with pytest.raises(OSError, match="No space left"):
        log.append([line("lost")])
    monkeypatch.undo()
    log.append([line("b")])
    assert json.loads(path.read_text().splitlines()[-1])["request_id"] == "b"


def test_the_device_that_is_always_full():
    log = AuditLog(audit_log.Path("/dev/full"))
    with pytest.raises(OSError, match="No space left"):
        log.append([line()])
