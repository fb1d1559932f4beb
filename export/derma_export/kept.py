"""Keep an exported graph without the weights that its bundle holds.

    keep(Path(".run/models/derma_biomedclip/3"), bundle.path, Path("training/graphs/derma-mini/fp32"))

``derma_serving.graphs`` describes the folder, and makes the file from it again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from derma_serving.graphs import PARTS, REST, assembled, part_of, tensors
from derma_serving.runtime.integrity import GRAPH, MANIFEST, read_manifest

LEAST = 1024  # bytes: smaller tensors are kept with the rest
THIRDS = 3  # of the rows of a layer that computes query, key and value


def keep(version: Path, bundle: Path, folder: Path) -> int:
    """Write what gives the version's graph, together with the bundle; returns the size of that in bytes.

    Raises:
        Tampered: it would not give the same file.
        OSError: the folder cannot be written.
    """
    content = (version / GRAPH).read_bytes()
    known = dict(_parts(bundle))
    parts: list[Any] = []
    rest, at = bytearray(), 0
    for tensor in onnx.load_model_from_string(content).graph.initializer:
        if len(tensor.raw_data) >= LEAST and (part := known.get(tensor.raw_data)):
            begins = content.index(tensor.raw_data, at)
            rest += content[at:begins]
            parts += [begins - at, part]
            at = begins + len(tensor.raw_data)
    rest += content[at:]
    parts.append(len(content) - at)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    manifest = {key: value for key, value in read_manifest(version).items() if key != "version"}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    (folder / PARTS).write_text(json.dumps({"parts": parts}, indent=1) + "\n")
    (folder / REST).write_bytes(rest)
    assembled(folder, bundle)
    return sum(path.stat().st_size for path in folder.iterdir())


def _parts(bundle: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """What the bundle's tensors give: their bytes, and how to get at them."""
    for name, tensor in tensors(bundle).items():
        height = len(tensor) // THIRDS if tensor.ndim == 2 and len(tensor) % THIRDS == 0 else 0
        thirds = [(height * n, height * (n + 1)) for n in range(THIRDS)] if height else []
        for rows in (None, *thirds):
            for turned in (False, True) if tensor.ndim == 2 else (False,):
                yield part_of(tensor, rows, turned), {"tensor": name, "rows": rows, "turned": turned}
