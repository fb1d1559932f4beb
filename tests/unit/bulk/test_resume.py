"""What ends a run of ``derma bulk``, what is kept of it, and how the same command goes on."""

import fcntl
import json
import os
import signal

import pytest

from derma_semantics.domain.errors import AccessDenied, DeadlineExceeded, Overloaded, ServiceUnavailable
from tests.unit.bulk.conftest import IMAGES, numbers


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
        patch.setattr("derma_semantics.bulk.journal.Journal.remove", die)
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
