"""Which segments of shared memory nobody uses."""

import mmap
import os
import secrets

from derma_serving.segments import FOLDER, remove, unused


def test_only_what_nobody_uses_is_removed():
    prefix = f"derma_test_{secrets.token_hex(8)}_"
    used, left = (FOLDER / f"{prefix}{name}" for name in ("used", "left"))
    try:
        for path in (used, left):
            path.write_bytes(bytes(4096))
        with used.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
            assert unused(prefix, [os.getpid()]) == {left}
            assert unused(prefix, []) == {used, left}
            remove(unused(prefix, [os.getpid()]))
            assert used.exists() and not left.exists()
        assert unused(prefix, [os.getpid()]) == {used}
        remove([left])  # gone already
    finally:
        remove([used, left])
