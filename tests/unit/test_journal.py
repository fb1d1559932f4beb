"""The journal that evaluate and bulk share: what a kill, a cut and a second process leave."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derma_semantics.bulk.journal import SYNC_ANSWERS, Journal
from derma_semantics.domain.conditions import CONDITIONS
from derma_semantics.domain.contract import Triage
from derma_semantics.domain.diagnosis import Diagnosis, Finding, ServedBundle

DIGEST = "ab" * 32
FINDINGS = tuple(Finding(condition, 1 / 7) for condition in CONDITIONS)
NAMES = [f"{number}.jpg" for number in range(5)]


def answer(digest=DIGEST):
    return Diagnosis(FINDINGS, 0.5, Triage.REVIEW, CONDITIONS[:2], None, ServedBundle(digest, "mini"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.jsonl"


def write(path, names):
    with Journal(path, DIGEST) as journal:
        for name in names:
            journal.append(name, answer())


def test_answers_come_back_in_order(path):
    write(path, NAMES[:3])
    write(path, NAMES[3:])
    with Journal(path, DIGEST) as journal:
        assert journal.names.keys() == {*NAMES}
        records = list(journal.records())
    assert [record["image"] for record in records] == NAMES
    assert records[0] == {"image": "0.jpg", **answer().to_dict()}


def test_an_answer_counts_once_its_line_is_written(path, monkeypatch):
    """However soon after that Ctrl-C comes."""
    with Journal(path, DIGEST) as journal:
        journal.append("0.jpg", answer())
        monkeypatch.setattr(journal, "names", None)  # where an interrupt would stop the next one
        with pytest.raises(TypeError):
            journal.append("1.jpg", answer())
        assert journal.count() == 2


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 3000))
def test_cut_anywhere_every_whole_line_stays_and_the_rest_goes_on(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "answers.jsonl"
    write(path, NAMES)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    with Journal(path, DIGEST) as journal:
        assert len(journal.names) == whole[:cut].count(b"\n")
        for name in NAMES:
            if name not in journal.names:
                journal.append(name, answer())
    assert path.read_bytes() == whole


def test_answers_of_another_bundle_are_refused(path):
    write(path, NAMES)
    with pytest.raises(ValueError, match="answers of bundle abababababab, but the service now"):
        Journal(path, "cd" * 32)
    with Journal(path, DIGEST) as journal, pytest.raises(ValueError, match="answers with efefefefefef"):
        journal.append("9.jpg", answer("ef" * 32))
    assert len(path.read_text().splitlines()) == len(NAMES)


def test_a_damaged_line_is_named(path):
    write(path, NAMES)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], "{", *lines[3:]]) + "\n")
    with pytest.raises(ValueError, match=r"answers.jsonl is damaged in line 3"):
        Journal(path, DIGEST)


def test_one_process_at_a_time(path):
    with Journal(path, DIGEST), pytest.raises(ValueError, match="in use"):
        Journal(path, DIGEST)
    Journal(path, DIGEST).close()


def test_a_removed_journal_is_not_written_to(path):
    """What follows a removal is a new file, not the lost one."""
    with Journal(path, DIGEST) as journal:
        journal.append("0.jpg", answer())
        journal.remove()
    with Journal(path, DIGEST) as journal:
        assert journal.names.keys() == set()
        journal.append("1.jpg", answer())
    assert json.loads(path.read_text())["image"] == "1.jpg"


def test_the_disk_is_asked_seldom(path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda _: calls.append(1))
    monkeypatch.setattr("derma_semantics.bulk.journal.time.monotonic", lambda: 0.0)
    with Journal(path, DIGEST) as journal:
        for number in range(3 * SYNC_ANSWERS + 1):
            journal.append(f"{number}.jpg", answer())
        assert len(calls) == 3
    assert len(calls) == 4


def test_nor_later_than_a_second(path, monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(os, "fsync", lambda _: calls.append(now[0]))
    monkeypatch.setattr("derma_semantics.bulk.journal.time.monotonic", lambda: now[0])
    with Journal(path, DIGEST) as journal:
        for now[0] in (0.5, 0.9, 1.1, 1.5, 2.2):
            journal.append(f"{now[0]}.jpg", answer())
        assert calls == [1.1, 2.2]
