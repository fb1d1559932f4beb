"""Check that a model version is what was exported, before it serves.

    manifest = check_version(Path(".run/models/derma_biomedclip/3"), stated)
    check_answers(session, manifest)

A digest finds what was damaged, exchanged or left from another export. Who can write all of a
repository can also write matching digests: against them a bundle is signed, and a caller says
which bundle it expects (`derma status --verify --expect`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from derma_semantics.domain.contract import FACTS, NETWORK, PARAMETERS
from derma_semantics.domain.integrity import BundleError, read_object, sha256

GRAPH = "model.onnx"
MANIFEST = "manifest.json"


class Tampered(RuntimeError):
    """A model version, or what is said of it, is not what was exported."""


def versions(model: Path) -> list[Path]:
    """Folders of a model's versions, lowest first; none where there is no model."""
    if not model.is_dir():
        return []
    return sorted((v for v in model.iterdir() if v.is_dir() and v.name.isdigit()), key=lambda v: int(v.name))


def read_manifest(version: Path) -> dict[str, Any]:
    """What export wrote beside the graph.

    Raises:
        Tampered: there is none, or it is damaged.
    """
    path = version / MANIFEST
    if not path.is_file():
        raise Tampered(f"{path} is missing: export the bundle again")
    try:
        return read_object(path.read_bytes(), path)
    except BundleError as exc:
        raise Tampered(str(exc)) from exc


def check_version(version: Path, stated: Mapping[str, str], graph: str = GRAPH) -> dict[str, Any]:
    """The version's manifest, once its graph and its configuration are found to agree with it.

    Args:
        stated: the parameters of the configuration that the version is to be served with. They
            are those of the newest version, which need not be this one; after an export that
            was killed, those of the one before.

    Raises:
        Tampered: the graph is another, or the configuration states what no version was made from.
    """
    manifest = read_manifest(version)
    actual, said = sha256(version / graph), str(manifest.get("graph_digest"))
    if actual != said:
        raise Tampered(
            f"{version / graph} is not the graph that was exported: sha256 {actual[:12]}…, "
            f"{MANIFEST} says {said[:12]}…"
        )
    if all(_difference(stated, known) for known in (manifest, *_readable(version.parent))):
        key = _difference(stated, manifest)
        raise Tampered(
            f"config.pbtxt of {version.parent.name} states {key} {_short(stated.get(key))}, version "
            f"{version.name} was exported with {_short(manifest.get(key))}: export the bundle again"
        )
    return manifest


def check_answers(session: Any, manifest: Mapping[str, Any]) -> None:
    """Have the graph itself say which bundle it holds, by answering one black image.

    Raises:
        Tampered: it names another bundle than the manifest.
    """
    import numpy as np

    black = {name: np.zeros((1, *spec.shape), np.uint8) for name, spec in NETWORK.inputs.items()}
    (answer,) = session.run(["BUNDLE"], black)
    actual, said = bytes(answer[0].tolist()).hex(), str(manifest.get("bundle_digest"))
    if actual != said:
        raise Tampered(f"the graph holds bundle {actual[:12]}…, its {MANIFEST} says {said[:12]}…")


def _difference(stated: Mapping[str, str], manifest: Mapping[str, Any]) -> str:
    """The first parameter that the two state differently; empty for none."""
    return next((key for key in (*PARAMETERS, *FACTS) if stated.get(key) != manifest.get(key)), "")


def _readable(model: Path) -> Iterator[dict[str, Any]]:
    for version in versions(model):
        with suppress(Tampered):
            yield read_manifest(version)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 16 else f"{text[:12]}…"
