"""Export to a disk with ever less room, and to one that cannot be written; run by test_disk.py.

    unshare --mount --map-root-user python tests/faults/full_disk.py FOLDER

Mounts a small file system of its own on FOLDER, which ends with this process. The last line it
prints is JSON: how many exports failed for which reason.
"""

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from derma_semantics.domain.contract import FACTS, PARAMETERS
from derma_semantics.domain.integrity import sha256
from derma_serving import repository

ROOM = 2 * 2**20
GRAPH = 200_000
STEP = 8_192


def export(target, graph, name):
    manifest = dict.fromkeys((*PARAMETERS, *FACTS), name) | {"embedding_size": 8}
    return repository.install(target, graph, {**manifest, "graph_digest": sha256(graph)})


def snapshot(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fill(path, leave):
    """Take all room but ``leave`` bytes."""
    free = os.statvfs(path.parent)
    path.write_bytes(b"x" * max(0, free.f_bavail * free.f_bsize - leave))


def refused(target, graph, before):
    """The reason why an export fails, which leaves everything as it was; None if it succeeds."""
    try:
        export(target, graph, "b")
    except OSError as exc:
        reason = exc
    else:
        return None
    assert snapshot(target) == before, f"{reason} left something"
    assert repository.check(target)["1"]["bundle_name"] == "a"
    return errno.errorcode[reason.errno]


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True, timeout=30)


def main(folder):
    graph = folder / "graph.onnx"
    graph.write_bytes(bytes(GRAPH))
    disk = folder / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(disk))
    target, outcomes = disk / "models", Counter()
    assert export(target, graph, "a") == 1
    before = snapshot(target)
    for leave in range(0, 2 * GRAPH, STEP):
        fill(disk / "filler", leave)
        reason = refused(target, graph, before)
        (disk / "filler").unlink()
        outcomes[str(reason)] += 1
        if reason is None:
            break
    assert repository.check(target)["2"]["bundle_name"] == "b"
    for leave in range(0, 4 * STEP, STEP):  # a new repository, of which only a part fits
        fill(disk / "filler", leave)
        try:
            export(disk / "new", graph, "a")
        except OSError as exc:
            outcomes[f"new {errno.errorcode[exc.errno]}"] += 1
        (disk / "filler").unlink()
    assert export(disk / "new", graph, "a") == 1
    assert repository.check(disk / "new")
    mount("-o", "remount,ro", str(disk))
    before = snapshot(target)
    outcomes[str(refused(target, graph, before))] += 1
    mount("-o", f"remount,rw,size={ROOM}", str(disk))
    assert export(target, graph, "c") == 3
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
