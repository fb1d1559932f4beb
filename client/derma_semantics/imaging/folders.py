"""The images of a folder: the one lister of the project.

images_in(Path("photographs"))                          # what the server decodes, by name
images_in(Path("clinic"), CLIENT_SUFFIXES, least=1)     # DICOM too; ValueError where there is none
located([Path("part_1"), Path("part_2")], ["ISIC_0024306"])
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from derma_semantics.domain.formats import SERVICE_SUFFIXES

Suffixes = tuple[str, ...]


def walk(folder: str, suffixes: Suffixes, *, recursive: bool) -> Iterator[str]:
    """The names of all images, in sorted order, folder by folder; strings, for there may be many.

    Raises:
        OSError: a folder cannot be read.
    """
    for place, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(folders) if recursive else []
        yield from (os.path.join(place, name) for name in sorted(files) if name.lower().endswith(suffixes))


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
    paths = {path.stem: path for path in sorted(found, key=lambda path: -rank[path.suffix.lower()])}
    if absent := [name for name in names if name not in paths]:
        where = " and ".join(map(str, folders))
        raise ValueError(
            f"{where} lacks {len(absent)} of {len(names)} images, e.g. {absent[0]} ({', '.join(suffixes)})"
        )
    return [paths[name] for name in names]


def _raise(error: OSError) -> NoReturn:
    raise error
