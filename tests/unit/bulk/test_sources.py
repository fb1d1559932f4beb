"""Where ``derma bulk`` finds images: files, folders, patterns and lists."""

import errno
import os
from pathlib import Path

import pytest

from derma_semantics.bulk import images


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


def test_images_are_found_lazily(tmp_path):
    """A list that never ends, e.g. from `tail -f`, can be begun."""

    def endless():
        number = 0
        while True:
            number += 1
            yield b"%d.jpg\n" % number

    names = images(["-"], listed=endless())
    assert [next(names) for _ in range(3)] == ["1.jpg", "2.jpg", "3.jpg"]
