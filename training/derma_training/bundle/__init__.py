"""A bundle: the sealed directory that export, serving and the sidecar read.

from derma_training.bundle import Bundle
bundle = Bundle.open("training/bundles/derma-mini")     # checks every digest
"""

from __future__ import annotations

from derma_semantics.domain.integrity import MANIFEST, BundleError, sha256
from derma_training.bundle.bundle import WEIGHTS, Bundle, seal, write_prompts
from derma_training.bundle.calibration import Calibration, write_calibration
from derma_training.bundle.files import write_json

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
