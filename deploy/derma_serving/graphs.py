"""An exported graph that was kept without the weights its bundle holds, and is put together again.

    content = assembled(Path("training/graphs/derma-mini/fp32"), Path("training/bundles/derma-mini"))

A kept graph (``derma-export --keep`` makes it) is a folder: ``manifest.json`` as export wrote it,
``rest.bin`` with the bytes that no tensor of the bundle gives, and ``parts.json``, which lists the file from
its first byte to its last: a number of bytes of the rest, or a part of a tensor. What comes out is the file
that was exported, bit for bit, or an error: the manifest has its digest. No PyTorch is needed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from derma_semantics.domain.integrity import BundleError, read_object
from derma_serving.runtime.integrity import MANIFEST, Tampered, read_manifest

PARTS, REST = "parts.json", "rest.bin"
ADAPTER = "adapter"

Array = NDArray[Any]


def assembled(folder: Path, bundle: Path) -> bytes:
    """The file of a kept graph.

    Raises:
        Tampered: folder and bundle are not those that it was kept from.
        OSError: a file cannot be read.
    """
    said = read_manifest(folder).get("graph_digest")
    try:
        made = _joined(folder, tensors(bundle))
    except (BundleError, SafetensorError, KeyError, TypeError, ValueError) as exc:
        raise Tampered(f"{folder} and {bundle} cannot be put together: {exc}") from exc
    if (actual := hashlib.sha256(made).hexdigest()) != said:
        raise Tampered(
            f"{folder} and {bundle} do not give the graph that was exported: "
            f"sha256 {actual[:12]}…, {MANIFEST} says {str(said)[:12]}…"
        )
    return made


def tensors(bundle: Path) -> dict[str, Array]:
    """A bundle's tensors in fp32, by their names, with the adapter folded in."""
    found: dict[str, Array] = {}
    for path in sorted(bundle.glob("*.safetensors")):
        found |= {name: value.astype(np.float32) for name, value in load_file(path).items()}
    if (bundle / ADAPTER).is_dir():
        _fold_adapter(bundle / ADAPTER, found)
    return found


def folded(weight: Array, a: Array, b: Array, scale: float) -> NDArray[np.float32]:
    """A weight with its LoRA update, ``weight + scale * b @ a``: the same bits on every machine.

    The sum runs over the ranks in their order, in fp64 and element by element. A matrix product would leave
    the order of additions to the library and the processor.

    Args:
        weight: (out, in).
        a, b: (rank, in) and (out, rank).
    """
    total = np.zeros(weight.shape)
    for row, column in zip(a.astype(np.float64), b.T.astype(np.float64), strict=True):
        total += column[:, None] * row
    return (weight + scale * total).astype(np.float32)


def part_of(tensor: Array, rows: tuple[int, int] | None, turned: bool) -> bytes:
    """The bytes of a tensor's rows, of all for None; ``turned``: transposed."""
    chosen = tensor if rows is None else tensor[slice(*rows)]
    return (chosen.T if turned else chosen).tobytes()


def _joined(folder: Path, known: dict[str, Array]) -> bytes:
    rest, at = (folder / REST).read_bytes(), 0
    made = bytearray()
    for part in read_object((folder / PARTS).read_bytes(), folder / PARTS)["parts"]:
        if isinstance(part, int):
            made += rest[at : at + part]
            at += part
        else:
            made += part_of(known[part["tensor"]], part["rows"], part["turned"])
    return bytes(made)


def _fold_adapter(folder: Path, found: dict[str, Array]) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    halves = load_file(folder / "adapter_model.safetensors")
    for name, a in halves.items():
        if name.endswith(".lora_A.weight"):
            weight = name.removeprefix("base_model.model.").replace(".lora_A.", ".")
            b = halves[name.replace(".lora_A.", ".lora_B.")]
            found[weight] = folded(found[weight], a, b, config["lora_alpha"] / config["r"])
