"""The images of a folder: the one lister of the project.

images_in(Path("photographs"))                          # what the server decodes, by name
images_in(Path("clinic"), CLIENT_SUFFIXES, least=1)     # DICOM too; ValueError where there is none
located([Path("part_1"), Path("part_2")], ["ISIC_0024306"])
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from derma_semantics.domain.formats import DICOM, SERVICE_SUFFIXES
from derma_semantics.domain.regular import read_regular

Suffixes = tuple[str, ...]

# macOS puts what other file systems cannot hold of "a.jpg" into "._a.jpg" (AppleDouble).
NO_IMAGE = "._"
# A disc's list of its DICOM files, itself one (DICOM PS3.10, section 8.6).
DICOM_LIST = "DICOMDIR"


def walk(
    folder: str, suffixes: Suffixes, *, recursive: bool, skipped: Callable[[str], object] = lambda _: None
) -> Iterator[str]:
    """The names of all images, folder by folder, in sorted order; strings, for there may be many.

    Linked folders follow those that lie there; a folder that can be reached in several ways, or from
    within itself, is listed once. Where DICOM is asked for, files without a suffix that are DICOM
    are images too.

    Args:
        skipped: told the name of each file that is no image, but for macOS's ``._`` files.

    Raises:
        OSError: a folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        if not _first(place, seen):
            folders.clear()
            continue
        folders.sort(key=lambda name: (os.path.islink(os.path.join(place, name)), name))  # noqa: PTH114
        if not recursive:
            folders.clear()
        for name in sorted(files):
            path = os.path.join(place, name)
            if name.startswith(NO_IMAGE):
                continue
            if name.lower().endswith(suffixes) or _bare_dicom(path, name, suffixes):
                yield path
            else:
                skipped(path)


def images_in(folder: Path, suffixes: Suffixes = SERVICE_SUFFIXES, *, least: int = 0) -> list[Path]:
    """The images directly in a folder, by name.

    Raises:
        ValueError: it holds fewer than ``least``; names the folder and the suffixes.
        OSError: it cannot be read.
    """
    paths = [Path(name) for name in walk(str(folder), suffixes, recursive=False)]
    if len(paths) < least:
        raise ValueError(too_few(folder, suffixes, len(paths), least))
    return paths


def too_few(folder: Path | str, suffixes: Suffixes, found: int = 0, least: int = 1) -> str:
    """The sentence that says so."""
    kinds = ", ".join(suffixes)
    if not found:
        return f"{folder} holds no image ({kinds})"
    return f"{folder} holds {found} of the {least} images needed ({kinds})"


def located(
    folders: Sequence[Path], names: Sequence[str], suffixes: Suffixes = SERVICE_SUFFIXES
) -> list[Path]:
    """The files of these images, named without suffix; of several, the suffix that stands first counts.

    Raises:
        ValueError: images are in none of the folders.
        OSError: a folder cannot be read.
    """
    found = [path for folder in folders for path in images_in(folder, suffixes)]
    rank = {suffix: place for place, suffix in enumerate(suffixes)}
    found.sort(key=lambda path: -rank.get(path.suffix.lower(), len(rank)))
    paths = {path.stem if path.suffix.lower() in rank else path.name: path for path in found}
    if absent := [name for name in names if name not in paths]:
        where = " and ".join(map(str, folders))
        raise ValueError(
            f"{where} lacks {len(absent)} of {len(names)} images, e.g. {absent[0]} ({', '.join(suffixes)})"
        )
    return [paths[name] for name in names]


def suffix_of(name: str) -> str:
    """In lower case; empty where there is none. The last number of a UID is no suffix."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    return "" if suffix[1:].isdigit() else suffix


def _first(place: str, seen: set[tuple[int, int]]) -> bool:
    """Whether the walk comes to this folder for the first time."""
    found = os.stat(place)  # noqa: PTH116
    known = (found.st_dev, found.st_ino) in seen
    seen.add((found.st_dev, found.st_ino))
    return not known


def _bare_dicom(path: str, name: str, suffixes: Suffixes) -> bool:
    """Whether a file without suffix is DICOM, as scanners and discs have them."""
    if not set(DICOM.suffixes) <= set(suffixes) or suffix_of(name) or name.upper() == DICOM_LIST:
        return False
    try:
        return DICOM.begins(read_regular(path, DICOM.offset + len(DICOM.signatures[0])))
    except OSError:
        return False


def _raise(error: OSError) -> NoReturn:
    raise error
