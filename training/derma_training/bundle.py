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
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from derma_semantics.conditions import CODES, CONDITIONS
from derma_semantics.integrity import (
    MANIFEST,
    SCHEMA_VERSION,
    SIGNATURE,
    BundleError,
    read_bundle,
    sealed_files,
    sha256,
)
from derma_training.quality.limits import Quality, read_quality

__all__ = [
    "MANIFEST",
    "WEIGHTS",
    "Bundle",
    "BundleError",
    "Calibration",
    "seal",
    "sha256",
    "write_calibration",
    "write_json",
    "write_prompts",
]

WEIGHTS = "open_clip_model.safetensors"
RAREST = 1e-6  # share of a condition; less is a mistake


@dataclass(frozen=True)
class Calibration:
    """Content of ``calibration.json``.

    Attributes:
        temperature: divides the logits before the softmax.
        bias: added to the logits after that, by condition code; 0 for a code that is not named.
        prevalence: by condition code, how frequent each is where RISK is meant for, as shares or counts.
            Empty where all are, as in bundles of older code.
        review, urgent: thresholds on RISK, in [0, 1], at or above which TRIAGE is 1, 2.
        margin: by which the odds of RISK may fall in coarse arithmetic before one that ``review`` must find
            is missed; 1, none, in bundles of older code.
        prediction_set: by condition code, the lowest probability, in [0, 1], with which the
            condition belongs to PREDICTION_SET. A code that is not named always belongs, so
            that the answer of an older bundle, which names none, is safe.
        report: how they were chosen and what they achieved, for people.
    """

    temperature: float = 1.0
    bias: dict[str, float] = field(default_factory=dict)
    prevalence: dict[str, float] = field(default_factory=dict)
    review: float = 0.5
    urgent: float = 0.5
    margin: float = 1.0
    prediction_set: dict[str, float] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise BundleError(f"temperature must be positive, got {self.temperature}")
        if not 0 <= self.review <= self.urgent <= 1:
            raise BundleError(
                f"thresholds must satisfy 0 <= review <= urgent <= 1, got {self.review}, {self.urgent}"
            )
        if not self.margin >= 1:
            raise BundleError(f"margin must be at least 1, got {self.margin}")
        if strange := self.bias.keys() - set(CODES):
            raise BundleError(f"bias names {', '.join(sorted(strange))}, which is no condition")
        if self.prevalence and self.prevalence.keys() != set(CODES):
            named = ", ".join(self.prevalence)
            raise BundleError(f"prevalence must name {', '.join(CODES)}, and names {named}")
        if not _frequent(self.prevalence.values()) or min(self.frequencies) < RAREST:
            raise BundleError(f"prevalence must be finite, no share below {RAREST}, got {self.prevalence}")
        for code, lowest in self.prediction_set.items():
            if code not in CODES or not 0 <= lowest <= 1:
                raise BundleError(
                    f"prediction_set must give conditions values in [0, 1], got {code}: {lowest}"
                )

    @property
    def biases(self) -> list[float]:
        """``bias`` in the order of ``CODES``."""
        return [self.bias.get(code, 0.0) for code in CODES]

    @property
    def frequencies(self) -> list[float]:
        """``prevalence`` as shares of one, in the order of ``CODES``."""
        given = [self.prevalence.get(code, 1.0) for code in CODES]
        return [value / sum(given) for value in given]

    @property
    def set_thresholds(self) -> list[float]:
        """``prediction_set`` in the order of ``CODES``."""
        return [self.prediction_set.get(code, 0.0) for code in CODES]


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
        """Whether nobody trained it, so that only its speed means something."""
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
        return Calibration(**json.loads((self.path / "calibration.json").read_text()))

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


def _frequent(values: Iterable[object]) -> bool:
    """Whether all are numbers above 0 and below infinity."""
    return all(isinstance(value, (int, float)) and 0 < value < math.inf for value in values)


def write_prompts(folder: Path) -> None:
    """Write the project's own definitions as ``prompts.json``."""
    write_json(folder / "prompts.json", {c.code: list(c.prompts) for c in CONDITIONS})


def write_calibration(folder: Path, calibration: Calibration) -> None:
    write_json(folder / "calibration.json", asdict(calibration))


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


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
