"""Names, shapes, types and limits that server and clients agree on.

    from derma_semantics import contract
    contract.CLASSIFIER.outputs["PROBABILITIES"].shape     # (7,)

The hand-written ``config.pbtxt`` files are tested against this module.
Types are Triton's names (KServe v2 protocol, "Tensor Data Types").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.quality import REASONS

IMAGE_SIZE = 224
MAX_ENCODED_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000
MIN_SIDE = 32
MAX_ASPECT = 100
# Of a progressive JPEG: each scan visits every pixel again.
MAX_SCANS = 100
MAX_SCANNED_PIXELS = 1_000_000_000
MAX_DECODE_SECONDS = 2.0  # of processor time
MAX_BATCH = 32
# Of PREDICTION_SET: at least this share of the sets holds the true condition.
SET_COVERAGE = 0.95


class Triage(IntEnum):
    """Values of the ``TRIAGE`` output."""

    ROUTINE = 0
    REVIEW = 1
    URGENT = 2


@dataclass(frozen=True)
class Tensor:
    """A tensor without its batch axis; -1 is a size that the bundle decides."""

    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """One Triton model: its name, backend and tensors."""

    name: str
    backend: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


_IMAGE = {"IMAGE": Tensor("BYTES", (1,))}
_PIXELS = {"PIXELS": Tensor("UINT8", (IMAGE_SIZE, IMAGE_SIZE, 3))}
_ANSWERS = {
    "PROBABILITIES": Tensor("FP32", (len(CODES),)),
    "RISK": Tensor("FP32", (1,)),
    "TRIAGE": Tensor("INT32", (1,)),
    "PREDICTION_SET": Tensor("BOOL", (len(CODES),)),
    # In the order of ``quality.REASONS``; an older server does not have it.
    "QUALITY": Tensor("BOOL", (len(REASONS),)),
    "EMBEDDING": Tensor("FP32", (-1,)),
    "BUNDLE": Tensor("UINT8", (32,)),
}

PREPROCESS = Model("derma_preprocess", "python", _IMAGE, _PIXELS)
NETWORK = Model("derma_biomedclip", "onnxruntime", _PIXELS, _ANSWERS)
CLASSIFIER = Model("derma_classifier", "ensemble", _IMAGE, _ANSWERS)
MODELS = (CLASSIFIER, PREPROCESS, NETWORK)
# Beside these during a roll-out only: what is to take the network's place, and what shares images out
# between the two.
CANDIDATE = replace(NETWORK, name="derma_biomedclip_candidate")
CANARY = replace(NETWORK, name="derma_canary", backend="python")

# Beside the pixels where an audit log is kept: which image they were made from.
TICKET = "TICKET"

# Stands on every page, report and readable answer.
NOTICE = "Research use. Not a medical device."

# Part of the name of a bundle that nobody trained: its answers mean nothing.
RANDOM_WEIGHTS = "RANDOM WEIGHTS"

# Keys of the network's config parameters: which weights it serves.
PARAMETERS = ("bundle_name", "bundle_digest", "prompts_digest", "precision")
# Keys of what it says of them to people, as JSON; a server may lack them.
FACTS = ("calibration", "card")
