"""Cheap new versions: the committed bundle's graph under other digests, whole or broken.

make = release(repository, "ab" * 32)                # for Rollout.start
make = release(repository, "ab" * 32, corrupt_graph)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from derma_export.facts import statement
from derma_semantics.domain.contract import CANDIDATE, NETWORK
from derma_semantics.domain.integrity import sha256
from derma_serving.model_config import located, read, write
from derma_serving.repository import install
from derma_serving.runtime.integrity import GRAPH, read_manifest
from derma_training.bundle import Bundle

Break = Callable[[Path], None]


def release(repository: Path, original: Path, bundle: Bundle, digest: str, broken: Break | None = None):
    """As export does it, from a graph that was exported before; what it returns writes the candidate.

    Args:
        original: a whole version of ``bundle``, outside the repository.
        digest: the bundle's new one, which the graph answers with.
        broken: damages the candidate's folder afterwards.
    """

    def make() -> None:
        data, old = (original / GRAPH).read_bytes(), bytes.fromhex(bundle.digest)
        if data.count(old) != 1:
            raise ValueError(
                f"{original / GRAPH} holds its bundle's digest {data.count(old)} times, not once"
            )
        graph = original.parent / "changed.onnx"
        graph.write_bytes(data.replace(old, bytes.fromhex(digest)))
        told = {**statement(bundle, "fp32"), "bundle_digest": digest, "graph_digest": sha256(graph)}
        manifest = {**read_manifest(original), **told}
        del manifest["version"]
        number = install(repository, graph, manifest, CANDIDATE)
        if broken:
            broken(repository / CANDIDATE.name / str(number))

    return make


def corrupt_graph(version: Path) -> None:
    """One bit of the weights."""
    path = version / GRAPH
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_graph(version: Path) -> None:
    """No graph any more, though its digest is right."""
    path = version / GRAPH
    path.write_bytes(path.read_bytes()[:5000])
    manifest = read_manifest(version)
    (version / "manifest.json").write_text(json.dumps({**manifest, "graph_digest": sha256(path)}))


def failing_warm_up(version: Path) -> None:
    """The graph does not take what it is warmed up with."""
    path = located(version.parent)
    config = read(path)
    config.model_warmup[0].inputs["PIXELS"].dims[:] = [224, 224, 4]
    write(path, config)


def served(repository: Path) -> Path:
    """Folder of the network's versions."""
    return repository / NETWORK.name
