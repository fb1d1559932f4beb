"""Whether a bundle's files are those it was sealed with.

    manifest, digest = read_bundle(Path("training/bundles/derma-mini"))

The digest of a bundle is the sha256 of its ``bundle.json``, which holds the sha256 of every
other file. Only the standard library is needed, so that callers of a service can tell which
weights it should serve.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from derma_semantics.domain.regular import open_regular, read_regular

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
SIGNATURE = f"{MANIFEST}.minisig"
REQUIRED = ("open_clip_config.json", "prompts.json", "calibration.json")


class BundleError(ValueError):
    """The bundle is incomplete, altered or of an unknown schema."""


def read_bundle(folder: Path) -> tuple[dict[str, Any], str]:
    """A bundle's manifest and digest; checks that the folder holds exactly the files it names.

    Raises:
        BundleError: not a bundle, unknown schema, or a missing, altered or added file.
    """
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}")
    raw = read_regular(folder / MANIFEST)
    manifest = read_object(raw, folder / MANIFEST)
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise BundleError(
            f"{folder}: schema version {manifest.get('schema_version')}, this code reads {SCHEMA_VERSION}"
        )
    _check_files(folder, manifest.get("files"))
    return manifest, hashlib.sha256(raw).hexdigest()


def read_object(raw: bytes, path: Path) -> dict[str, Any]:
    """JSON that must be an object.

    Raises:
        BundleError: it is not; names ``path``.
    """
    try:
        value = json.loads(raw)
    except ValueError as exc:
        raise BundleError(f"{path} was altered: it is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise BundleError(f"{path} was altered: it holds no JSON object")
    return value


def sealed_files(folder: Path) -> dict[str, Path]:
    """Every file that a manifest names, by its name there; nothing behind linked folders."""
    apart = (folder / MANIFEST, folder / SIGNATURE)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p not in apart)
    return {path.relative_to(folder).as_posix(): path for path in files}


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_files(folder: Path, files: Any) -> None:
    if not isinstance(files, dict):
        raise BundleError(f"{folder / MANIFEST} was altered: it names no files")
    found = sealed_files(folder)
    for name in (*REQUIRED, *files):
        if name not in files or name not in found:
            raise BundleError(f"{folder / name} is missing")
    for name, path in found.items():
        if name not in files:
            raise BundleError(f"{path} does not belong to the bundle: {MANIFEST} does not name it")
        if (actual := sha256(path)) != files[name]:
            said = str(files[name])[:12]
            raise BundleError(f"{path} was altered: sha256 {actual[:12]}…, {MANIFEST} says {said}…")
