"""Regular files only, wherever a file is read: a named pipe waits for ever, a device does not end."""

import ast
import csv
import os
import stat

import click.testing
import pytest

from derma_semantics.client import DermaClient
from derma_semantics.commands import cli
from derma_semantics.domain.regular import open_regular, read_regular
from derma_semantics.evaluation.tables import read_rows
from derma_semantics.imaging.dicom import report
from derma_semantics.imaging.images import encoded
from derma_semantics.saliency import _upright
from derma_training.learning.config import load
from tests.unit.test_house import MODULES

pytestmark = pytest.mark.timeout(20)  # a reader that waits, waits for ever

KINDS = {"pipe": "a named pipe", "socket": "a socket", "device": "a device", "folder": "a folder"}


@pytest.fixture
def odd(tmp_path):
    """By kind, something named like a photograph that is no regular file."""
    paths = {kind: tmp_path / "odd" / f"{kind}.jpg" for kind in KINDS}
    paths["folder"].mkdir(parents=True)
    os.mkfifo(paths["pipe"])
    os.mknod(paths["socket"], stat.S_IFSOCK | 0o600)
    paths["device"].symlink_to("/dev/zero")
    return paths


READERS = {
    "open": open_regular,
    "read": read_regular,
    "image": encoded,
    "overlay": _upright,
    "table": lambda path: list(read_rows(path)),
    "report": lambda path: report(path, None),
    "training": load,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_refused_at_once(odd, kind, reader):
    with pytest.raises(OSError, match=f"{kind}.jpg is {KINDS[kind]}; only regular files are read"):
        READERS[reader](odd[kind])


def test_a_pipe_that_takes_a_files_place_is_refused_too(odd, tmp_path, monkeypatch):
    """Between the look at the name and its opening."""
    (tmp_path / "a.jpg").write_bytes(b"x")
    look = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **more: look(tmp_path / "a.jpg", **more))
    with pytest.raises(OSError, match="a named pipe"):
        read_regular(odd["pipe"])


def test_links_to_files_are_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"a photograph")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    assert read_regular(tmp_path / "b.jpg") == b"a photograph"
    assert read_regular(str(tmp_path / "b.jpg"), 3) == b"a p"
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "c.jpg")


class NeverAsked:
    def network(self, timeout):
        return {"bundle_name": "mini", "bundle_digest": "ab" * 32, "precision": "fp32", "version": "3"}

    def close(self):
        pass


def derma(*arguments):
    return click.testing.CliRunner().invoke(
        cli.main, list(map(str, arguments)), obj=lambda url, **_: DermaClient(url, transport=NeverAsked())
    )


def test_bulk_lists_them_as_failures(odd, tmp_path):
    result = derma("bulk", tmp_path / "odd", "--out", tmp_path / "out.csv")
    assert result.exit_code == 1, result.output
    with (tmp_path / "out.csv.errors.csv").open(newline="") as file:
        told = {row["image"]: row["message"] for row in csv.DictReader(file)}
    assert set(told) == {str(odd[kind]) for kind in ("pipe", "socket", "device")}
    assert all("only regular files are read" in message for message in told.values())


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_commands_refuse_them(odd, kind, tmp_path):
    asked = derma("classify", odd[kind])
    assert (asked.exit_code, KINDS[kind] in asked.stderr) == (1, True)
    asked = derma("explain", odd[kind], "--condition", "MEL", "--out", tmp_path / "out.png")
    assert (asked.exit_code, KINDS[kind] in asked.stderr) == (1, True)
    asked = derma("evaluate", "--images", tmp_path, "--truth", odd[kind], "--out", tmp_path / "report")
    assert (asked.exit_code, KINDS[kind] in asked.stderr) == (2, True)
    asked = derma("classify", odd[kind], "--token-file", odd[kind])
    assert (asked.exit_code, KINDS[kind] in asked.stderr) == (2, True)


# Modules that read what a person or another program names, or finds in a folder of theirs.
PREFIXES = (
    "derma_semantics.",
    "derma_training.data.",
    "derma_training.learning.config",
    "derma_training.quality.photographs",
    "derma_export.samples",
    "derma_saliency.evaluation.pairs",
    "derma_bench.payloads",
    "derma_bench.decode.measure",
)
OWN = {"derma_semantics.bulk.journal", "derma_semantics.domain.regular"}  # which it locks; which opens


def reads(tree):
    """Lines that read a file in any other way than through ``domain.regular``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("read_bytes", "read_text"):
            yield node.lineno
        if not isinstance(node, ast.Call):
            continue
        name, first = ast.unparse(node.func), node.args[0] if node.args else None
        if name == "Image.open":
            wrong = not ast.unparse(first).startswith(("io.BytesIO(", "buffer"))
        elif name in ("open", "io.open", "os.open"):
            wrong = True
        else:
            wrong = name.endswith(".open") and (first is None or getattr(first, "value", "") in ("r", "rb"))
        if wrong:
            yield node.lineno


def test_no_module_reads_files_in_another_way():
    names = [name for name in MODULES if name.startswith(PREFIXES) and name not in OWN]
    assert len(names) > 60
    found = [f"{n}:{line}" for n in names for line in reads(ast.parse(MODULES[n].read_text()))]
    assert found == []


@pytest.mark.parametrize(
    "code",
    ["p.read_bytes()", "partial(Path.read_text, p)", "open(p)", "p.open()", "p.open('rb')", "Image.open(p)"],
)
def test_another_way_would_be_found(code):
    assert list(reads(ast.parse(code))) == [1]
