"""A bundle: the directory that holds everything export and the sidecar need.

    bundle = Bundle.open("training/bundles/derma-mini")     # checks every digest
    bundle.digest, bundle.prompts["MEL"], bundle.calibration.temperature

Layout: ``bundle.json``, ``open_clip_config.json``, weights, ``text/``,
``adapter/`` (optional), ``prompts.json``, ``calibration.json``,
``metrics.json``, ``MODEL_CARD.md``, ``split.json`` (names of images by part); ``quality.json`` and
``quality.safetensors`` with the input check's limits (optional); ``bundle.json.minisig`` where
somebody signed it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derma_semantics.domain.conditions import CODES, CONDITIONS
from derma_semantics.domain.integrity import (
    MANIFEST,
    SCHEMA_VERSION,
    SIGNATURE,
    BundleError,
    read_bundle,
    sealed_files,
    sha256,
)
from derma_training.bundle.calibration import Calibration, read_calibration
from derma_training.bundle.files import write_json
from derma_training.bundle.limits import Quality, read_quality

WEIGHTS = "open_clip_model.safetensors"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle."""

    path: Path
    manifest: dict[str, Any]
    digest: str

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Read ``bundle.json`` and check that the folder holds exactly the files it names.

        Raises:
            BundleError: not a bundle, unknown schema, or a missing, altered or added file.
        """
        path = Path(path)
        return cls(path, *read_bundle(path))

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def random_weights(self) -> bool:
        """Return True if nobody trained it, so that only its speed means something."""
        return bool(self.manifest.get("random_weights", False))

    @property
    def prompts(self) -> dict[str, list[str]]:
        """Definitions a condition, by code, in the order of ``CODES``."""
        prompts = json.loads((self.path / "prompts.json").read_text())
        if list(prompts) != list(CODES) or not all(prompts.values()):
            raise BundleError(f"{self.path}/prompts.json must define {', '.join(CODES)}, in this order")
        return {code: list(prompts[code]) for code in CODES}

    @property
    def prompts_digest(self) -> str:
        return sha256(self.path / "prompts.json")

    @property
    def calibration(self) -> Calibration:
        return read_calibration(self.path)

    @property
    def quality(self) -> Quality | None:
        """Limits of the input check; None where it notices nothing."""
        try:
            return read_quality(self.path)
        except (OSError, ValueError, KeyError) as exc:
            raise BundleError(f"{self.path}: the input check's limits cannot be read: {exc}") from exc

    @property
    def adapter(self) -> Path | None:
        """Folder of the LoRA adapter in PEFT's format; None where nothing is to be merged."""
        folder = self.path / "adapter"
        return folder if (folder / "adapter_config.json").is_file() else None


def write_prompts(folder: Path) -> None:
    """Write the project's own definitions as ``prompts.json``."""
    write_json(folder / "prompts.json", {c.code: list(c.prompts) for c in CONDITIONS})


def seal(folder: Path, **facts: Any) -> Bundle:
    """Write ``bundle.json`` over the files that are in ``folder``, and open it.

    An old signature is removed: it was given to another content.

    Args:
        folder: a directory that already holds every other file.
        facts: name, base_model, licence, intended_use, git_commit and the like.
    """
    (folder / SIGNATURE).unlink(missing_ok=True)
    digests = {name: sha256(path) for name, path in sealed_files(folder).items()}
    write_json(folder / MANIFEST, {"schema_version": SCHEMA_VERSION, **facts, "files": digests})
    return Bundle.open(folder)
