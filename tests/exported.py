"""Exported model repositories, kept for later runs.

    models = exported(Bundle.open("training/bundles/derma-mini"))

They lie in ``.run/cache``, by a digest of the bundle and of everything that an export depends on, and
are shared by all processes. Nobody may change them: copy one first.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from pathlib import Path

from derma_export.exporter import Task, export_bundle
from derma_export.samples import synthetic_samples
from derma_training.bundle import Bundle

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".run" / "cache"
KEPT = 4
SOURCES = (
    "client/derma_semantics",
    "deploy/derma_serving",
    "training/derma_training",
    "export/derma_export",
    "model_repository",
)


def exported(bundle: Bundle, precision: str = "fp32") -> Path:
    """A model repository with the bundle as version 1; exported where it is not there yet."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = CACHE / key(bundle, precision)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            folder.touch()
            return folder
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="incoming-") as scratch:
            models = Path(scratch) / "models"
            export_bundle(bundle, models, Task(synthetic_samples(4), precision), say=lambda _: None)
            models.rename(folder)
        _remove_old()
    return folder


def key(bundle: Bundle, precision: str) -> str:
    """Digest of the bundle, the precision and all that an export is made with."""
    found = hashlib.sha256(f"{bundle.digest} {precision}".encode())
    for path in (*_sources(), ROOT / "requirements" / "project.lock"):
        found.update(f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()[:16]


def _sources() -> list[Path]:
    """Python files and configurations; no model versions, which a checkout may hold."""
    found = [path for folder in SOURCES for path in (ROOT / folder).rglob("*")]
    return sorted(path for path in found if path.suffix in {".py", ".pbtxt", ".txt"})


def _remove_old() -> None:
    entries = [path for path in CACHE.iterdir() if path.is_dir()]
    for path in sorted(entries, key=lambda path: path.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)
