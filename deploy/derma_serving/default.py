"""The model that comes with the package, for who exported none.

provide(Path(".run/models"), say=print, warn=print)     # it is the newest version there now
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from derma_semantics.domain.contract import FACTS, PARAMETERS
from derma_serving.drafts import naming
from derma_serving.graphs import assembled
from derma_serving.repository import install
from derma_serving.runtime.integrity import GRAPH, read_manifest
from derma_serving.runtime.precisions import DEFAULT
from derma_serving.settings import BUNDLE, KEPT_GRAPH
from derma_serving.version_store import Say, is_there


def provide(repository: Path, *, say: Say, warn: Say) -> None:
    """Put the default model into a repository, unless it is the newest version or was withdrawn.

    Raises:
        Tampered: it is not what was exported.
        OSError: the disk is full or cannot be written.
    """
    kept = KEPT_GRAPH / DEFAULT
    manifest = read_manifest(kept)
    statement = {key: manifest[key] for key in (*PARAMETERS, *FACTS)}
    if is_there(repository, statement, say=say, warn=warn):
        return
    version = _install(repository, assembled(kept, BUNDLE), manifest)
    name, precision = manifest["bundle_name"], manifest["precision"]
    say(f"version {version} in {repository.resolve()} is {name} as it comes with this package, {precision}")


def _install(repository: Path, graph: bytes, manifest: dict[str, Any]) -> int:
    with tempfile.TemporaryDirectory(prefix="derma-serving-") as scratch, naming(Path(scratch)):
        path = Path(scratch) / GRAPH
        path.write_bytes(graph)
        return install(repository, path, manifest)
