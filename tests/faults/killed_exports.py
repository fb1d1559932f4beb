"""Kill exports at random moments, and look at what is left; run by test_disk.py.

    python tests/faults/killed_exports.py FOLDER INTERRUPTIONS SEED

It kills until so many exports were interrupted at work, or for MOST_KILLS times as often. One
process forks the exporters, so that a kill costs milliseconds. The last line it prints is JSON:
how many kills there were, how many met an export at work, and how many versions came out.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from itertools import count
from pathlib import Path

from derma_semantics.domain.contract import FACTS, MODELS, NETWORK, PARAMETERS
from derma_semantics.domain.integrity import sha256
from derma_serving import repository
from derma_serving.model_config import read
from derma_serving.runtime.integrity import versions

MODEL = NETWORK.name
MOST = 3  # exports, until one is killed
MOST_KILLS = 30  # for each interruption: where a disk is slow only now and then, few meet one


def export(target, graph, name):
    manifest = dict.fromkeys((*PARAMETERS, *FACTS), name) | {"embedding_size": 8}
    return repository.install(target, graph, {**manifest, "graph_digest": sha256(graph)})


def export_on(target, graph):
    """What the child does: exports of two bundles in turn, until it is killed."""
    for number in count():
        export(target, graph, "ab"[number % 2])


def kill_one(target, graph, seconds):
    child = os.fork()
    if child == 0:
        try:
            export_on(target, graph)
        finally:
            os._exit(1)  # it should have been killed
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the exporter failed by itself"


def whole(target):
    """Every version is what was exported and every configuration parses; returns how many versions."""
    for path in target.glob("*/**/*.pbtxt"):
        read(path)
    found = versions(target / MODEL)
    assert [version.name for version in found] == [str(n + 1) for n in range(len(found))]
    if found:  # Triton would load it
        assert all((target / model.name / "config.pbtxt").is_file() for model in MODELS)
        assert (target / MODEL / "labels.txt").read_text().startswith("MEL\n")
        assert len(repository.check(target)) == len(found)
    return len(found)


def leftovers(target):
    return [path for path in target.glob("**/.*") if ".incoming" in path.name]


def main(folder, wanted, seed):
    rng, graph = random.Random(seed), folder / "graph.onnx"
    graph.write_bytes(rng.randbytes(2**20))
    target, kills, interrupted, made = folder / "models", 0, 0, 0
    began = time.monotonic()
    export(folder / "first", graph, "a")
    longest = MOST * (time.monotonic() - began)
    while interrupted < wanted and kills < MOST_KILLS * wanted:
        if kills % 5 == 0:  # a new repository
            shutil.rmtree(target, ignore_errors=True)
        kill_one(target, graph, rng.uniform(0, longest))
        kills += 1
        interrupted += bool(leftovers(target))
        before = whole(target)
        if rng.random() < 0.3:
            assert export(target, graph, "c") == before + 1
            assert not leftovers(target)
        made += before
    export(target, graph, "d")
    assert not leftovers(target)
    assert repository.stated(target)["bundle_name"] == "d"
    whole(target)
    print(json.dumps({"kills": kills, "interrupted": interrupted, "versions": made}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
