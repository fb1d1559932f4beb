"""Replacing a folder in one step.

    replace_folder(Path("my-bundle.new"), Path("my-bundle"))

``rename`` cannot put a folder in another's place. Linux can swap the two; elsewhere a kill at the
wrong moment leaves the old one under another name.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


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
