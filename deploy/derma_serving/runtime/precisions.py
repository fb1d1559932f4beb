"""The precisions that a graph can be exported and served in.

    bf16 = by_name("bf16")
    bf16.limits.probability     # 0.05: how far the gate lets a probability move
    bf16.openvino_hint          # 'bf16'

Everything that depends on the set of precisions (the commands' choices, the gate, the engines' options,
the benchmarks' contenders) derives from the tuple ``PRECISIONS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Largest losses of a precision against PyTorch in fp32.

    Attributes:
        probability: largest change of a probability or of RISK, over all images.
        cosine: largest cosine distance of two embeddings of one image.
        companions: largest change of a probability when other images share the batch.
        top1, triage, prediction_set, quality: largest share of images on which these may change.
        balanced_accuracy: largest loss of balanced accuracy, where labels are known.
    """

    probability: float
    cosine: float
    companions: float
    top1: float
    triage: float
    prediction_set: float
    quality: float
    balanced_accuracy: float = 0.005


@dataclass(frozen=True, kw_only=True)
class Precision:
    """One precision of a network.

    Attributes:
        limits: of the export's gate.
        openvino_hint: what OpenVINO computes in where a graph does not say int8. Processors without
            bf16 use fp32.
        cuda: options of ONNX Runtime's CUDA provider.
        torch_type: PyTorch's name of the arithmetic; None where it has none for a whole network.
        gpu: the graph is made for GPUs: its attention is fused, and TensorRT may compute it in fp16.
        conversion: by which the exported graph becomes a file of its own, a key of
            ``derma_export.precision.CONVERSIONS``; None: the engine alone makes the difference.
        calibrated: the conversion measures its ranges on training images.
    """

    name: str
    limits: Limits
    openvino_hint: str
    cuda: Mapping[str, str] = field(default_factory=dict)
    torch_type: str | None = None
    gpu: bool = False
    conversion: str | None = None
    calibrated: bool = False

    @property
    def graph(self) -> str:
        """The precision whose file this one runs: its own where it is converted."""
        return self.name if self.conversion else DEFAULT


DEFAULT = "fp32"
PRECISIONS: tuple[Precision, ...] = (
    Precision(
        name=DEFAULT,
        limits=Limits(
            probability=1e-4,
            cosine=1e-6,
            companions=1e-5,
            top1=0.0,
            triage=0.0,
            prediction_set=0.0,
            quality=0.0,
        ),
        openvino_hint="f32",
        cuda={"use_tf32": "0"},  # TF32 is less precise than its name says
        torch_type="float32",
    ),
    Precision(
        name="bf16",
        limits=Limits(
            probability=5e-2,
            cosine=1e-3,
            companions=1e-2,
            top1=0.02,
            triage=0.02,
            prediction_set=0.05,
            quality=0.03,
        ),
        openvino_hint="bf16",
        torch_type="bfloat16",
    ),
    Precision(
        name="fp16",
        limits=Limits(
            probability=5e-3,
            cosine=1e-4,
            companions=5e-3,
            top1=0.01,
            triage=0.01,
            prediction_set=0.02,
            quality=0.02,
        ),
        openvino_hint="f32",
        torch_type="float16",
        gpu=True,
        conversion="half",
    ),
    Precision(
        name="int8",
        # Numbers that int8 moves anyway; what follows from them is held tight.
        limits=Limits(
            probability=1.5e-1,
            cosine=3e-2,
            companions=1e-2,
            top1=0.03,
            triage=0.03,
            prediction_set=0.15,
            quality=0.05,
        ),
        openvino_hint="bf16",
        conversion="quantised",
        calibrated=True,
    ),
)

NAMES: tuple[str, ...] = tuple(precision.name for precision in PRECISIONS)


def by_name(name: str) -> Precision:
    """The precision of this name.

    Raises:
        ValueError: there is none.
    """
    for precision in PRECISIONS:
        if precision.name == name:
            return precision
    raise ValueError(f"unknown precision {name!r}: choose from {', '.join(NAMES)}")
