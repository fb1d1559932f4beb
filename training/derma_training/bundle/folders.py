"""Replacing a folder, or a sealed bundle, in one step.

    replace_folder(Path("my-bundle.new"), Path("my-bundle"))
    bundle = reseal(bundle, lambda draft: write_calibration(draft, calibration))

``rename`` cannot put a folder in another's place. Linux can swap the two; elsewhere a kill at the
wrong moment leaves the old one under another name.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from derma_training.bundle.bundle import Bundle, seal

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def reseal(bundle: Bundle, change: Callable[[Path], object]) -> Bundle:
    """Change files of a bundle, and seal it anew.

    Killed at any moment, it leaves the old bundle or the new one.

    Args:
        change: is given a copy of the bundle's folder to write into.

    Returns:
        The bundle under its new digest.
    """
    folder = bundle.path.resolve()
    facts = {key: value for key, value in bundle.manifest.items() if key not in ("schema_version", "files")}
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        draft = shutil.copytree(folder, Path(scratch) / folder.name)
        change(draft)
        seal(draft, **facts)
        replace_folder(draft, folder)
    return Bundle.open(bundle.path)


def replace_folder(new: Path, folder: Path) -> None:
    """Put ``new`` in the place of ``folder``, on the same file system, and delete the old one."""
    if _exchange(new, folder):
        shutil.rmtree(new)
        return
    aside = folder.with_name(f".{folder.name}.replaced")
    folder.rename(aside)
    try:
        new.rename(folder)
    except BaseException:
        aside.rename(folder)
        raise
    shutil.rmtree(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names; False where the system or the file system cannot."""
    swap = getattr(ctypes.CDLL(None), "renameat2", None)
    if swap is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    return bool(swap(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)
