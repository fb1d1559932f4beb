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

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from derma_export import repository
from derma_semantics.domain.contract import MODELS, NETWORK
from derma_semantics.domain.integrity import sha256
from derma_serving.runtime.integrity import versions

MODEL = NETWORK.name
MOST = 3  # exports, until one is killed
MOST_KILLS = 30  # for each interruption: where a disk is slow only now and then, few meet one


def values(name):
    digest = name * 64
    return {"bundle_name": name, "bundle_digest": digest, "prompts_digest": digest, "precision": "fp32"}


def export(target, graph, name):
    manifest = {**values(name), "graph_digest": sha256(graph)}
    return repository.install(target, graph, manifest, values(name), 8)


def export_on(target, graph):
    """What the child does: exports of two bundles in turn, until it is killed."""
    repository.prepare(target)
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
        text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
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
    repository.prepare(folder / "first")
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
            repository.prepare(target)
            assert export(target, graph, "c") == before + 1
            assert not leftovers(target)
        made += before
    repository.prepare(target)
    export(target, graph, "d")
    assert not leftovers(target)
    assert repository.stamped_parameters(target)["bundle_name"] == "d"
    whole(target)
    print(json.dumps({"kills": kills, "interrupted": interrupted, "versions": made}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
