"""Where ``derma bulk`` finds images: files, folders, patterns and lists."""

import errno
import itertools
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


class Piecewise:
    """Standard input that comes in these pieces."""

    def __init__(self, *pieces):
        self.pieces = iter(pieces)

    def read1(self, size):
        return next(self.pieces, b"")


def test_images_are_found_lazily():
    """A list that never ends, e.g. from `tail -f`, can be begun."""
    endless = Piecewise()
    endless.pieces = (b"%d.jpg\n" % number for number in itertools.count(1))
    names = images(["-"], listed=endless)
    assert [next(names) for _ in range(3)] == ["1.jpg", "2.jpg", "3.jpg"]


@pytest.mark.parametrize(
    ("pieces", "names"),
    [
        ([b"a.jpg\nb", b".jpg\r\n\n", b"c d.jpg"], ["a.jpg", "b.jpg", "c d.jpg"]),
        ([b"a\n1.jpg\0b", b".jpg\0\n2\r.jpg\0"], ["a\n1.jpg", "b.jpg", "\n2\r.jpg"]),
        ([b"\xef\xbb", b"\xbfa.jpg\n"], ["a.jpg"]),
        (["\ufeffü.jpg\r\n母斑.jpg\r\n".encode("utf-16-le")], ["ü.jpg", "母斑.jpg"]),
        (["\ufeff母".encode("utf-16-be")[:3], "母\n".encode("utf-16-be")[1:]], ["母"]),
        ([b"caf\xe9.jpg\n"], [os.fsdecode(b"caf\xe9.jpg")]),
        ([b"a.jpg\n", b"b.jpg\0c.jpg\n"], ["a.jpg", "b.jpg", "c.jpg"]),
        ([b"._a.jpg\nb.jpg\n/x/._c.jpg\n"], ["b.jpg"]),
    ],
    ids=["lines", "NUL", "UTF-8", "UTF-16 LE", "UTF-16 BE", "bytes", "NUL late", "AppleDouble"],
)
def test_lists_as_programs_write_them(pieces, names):
    assert list(images(["-"], listed=Piecewise(*pieces))) == names


def test_a_list_of_find_print0(bulk, transport, photos):
    (photos / "a\nb.jpg").write_bytes(b"90")
    listed = b"\0".join(map(os.fsencode, sorted(photos.glob("*.jpg")))) + b"\0"
    assert bulk(sources=("-",), stdin=listed).exit_code == 0
    assert sorted(transport.sent) == [*range(60), 90]


def test_linked_folders_are_followed_once(tmp_path):
    for name in ("b", "elsewhere"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    elsewhere = (tmp_path / "photos" / "elsewhere").rename(tmp_path / "elsewhere")
    for folder, name in ((tmp_path / "photos" / "b", "1.jpg"), (elsewhere, "2.jpg")):
        (folder / name).write_bytes(b"1")
    (tmp_path / "photos" / "a").symlink_to(tmp_path / "photos" / "b")  # the same folder twice
    (tmp_path / "photos" / "c").symlink_to(elsewhere)
    (elsewhere / "up").symlink_to(tmp_path / "photos")  # a loop
    (elsewhere / "self").symlink_to(elsewhere / "self")
    found = list(images([str(tmp_path / "photos")]))
    assert [str(Path(name).relative_to(tmp_path)) for name in found] == ["photos/b/1.jpg", "photos/c/2.jpg"]


def test_dicom_without_a_suffix_is_found_by_its_first_bytes(tmp_path):
    dicom, other = bytes(128) + b"DICM", b"#!/bin/sh"
    files = {"IM000001": dicom, "1.2.840.113619": dicom, "a.dicom": dicom, "b.DCM": dicom, "c.jfif": b"x"}
    for name, data in (files | {"script": other, "1.2": other, "DICOMDIR": dicom, "d.exe": dicom}).items():
        (tmp_path / name).write_bytes(data)
    skipped = []
    found = images([str(tmp_path)], skipped=skipped.append)
    assert sorted(Path(name).name for name in found) == sorted(files)
    assert sorted(Path(name).name for name in skipped) == ["1.2", "DICOMDIR", "d.exe", "script"]
