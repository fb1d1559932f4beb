"""What a bundle knows of the pictures it was made for: ``quality.json`` and ``quality.safetensors``.

write_quality(folder, quality)
quality = read_quality(folder)          # None where a bundle has none
quality.limits["softness"], quality.clouds["embedding"].mean
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

LIMITS = "quality.json"
CLOUDS = "quality.safetensors"
# What is measured, and the reason that it gives (codes of ``quality.REASONS``).
MEASURES = {
    "softness": "blur",
    "darkness": "exposure",
    "brightness": "exposure",
    "glare": "exposure",
    "emptiness": "small_lesion",
    "embedding": "out_of_distribution",
    "appearance": "out_of_distribution",
}
VECTORS = ("embedding", "appearance")
# Of the correlations, so that directions in which training images hardly differ count for little more.
SHRINKAGE = 0.05
_LEAST_DEVIATION = 1e-4


@dataclass(frozen=True)
class Cloud:
    """Where the training images' vectors lie: as a Gaussian, shrunk towards uncorrelated coordinates.

    Attributes:
        mean: fp32 (D,).
        whiten: fp32 (D, D); (vector - mean) @ whiten has uncorrelated coordinates of variance about 1.
    """

    mean: Tensor
    whiten: Tensor

    @classmethod
    def around(cls, vectors: Tensor) -> Cloud:
        """Fitted to fp32 (N, D)."""
        import torch  # takes seconds, and who opens a bundle need not wait for it

        values = vectors.double()
        mean, deviation = values.mean(dim=0), values.std(dim=0) + _LEAST_DEVIATION
        alike = torch.corrcoef(((values - mean) / deviation).T).nan_to_num(0)
        alike = (1 - SHRINKAGE) * alike + SHRINKAGE * torch.eye(len(mean), dtype=alike.dtype)
        strengths, axes = torch.linalg.eigh(alike)
        return cls(mean.float(), (axes / strengths.sqrt() / deviation[:, None]).float())


@dataclass(frozen=True)
class Quality:
    """Content of the two files.

    Attributes:
        limits: by name of ``MEASURES``, the largest value that is not noticed.
        clouds: by name of ``VECTORS``.
        report: how the limits were chosen, for people.
    """

    limits: dict[str, float]
    clouds: dict[str, Cloud]
    report: dict[str, Any] = field(default_factory=dict)


def write_quality(folder: Path, quality: Quality) -> None:
    """Write both files into a bundle that is to be sealed."""
    from safetensors.torch import save_file

    tensors = {
        f"{name}.{part}": getattr(cloud, part).contiguous()
        for name, cloud in quality.clouds.items()
        for part in ("mean", "whiten")
    }
    save_file(tensors, str(folder / CLOUDS))
    content = {"limits": quality.limits, "report": quality.report}
    (folder / LIMITS).write_text(json.dumps(content, indent=2) + "\n")


def read_quality(folder: Path) -> Quality | None:
    """The bundle's; None where it has none, as those with random weights.

    Raises:
        ValueError: it is incomplete.
    """
    from safetensors.torch import load_file

    if not (folder / LIMITS).is_file():
        return None
    content = json.loads((folder / LIMITS).read_text())
    if content["limits"].keys() != MEASURES.keys():
        raise ValueError(f"{folder / LIMITS} must give limits of {', '.join(MEASURES)}")
    tensors = load_file(str(folder / CLOUDS))
    clouds = {name: Cloud(tensors[f"{name}.mean"], tensors[f"{name}.whiten"]) for name in VECTORS}
    return Quality(content["limits"], clouds, content["report"])
