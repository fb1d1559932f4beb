"""The state of a phase on disk, so that a killed run goes on where it was.

    checkpoint = Checkpoint(path, fingerprint)
    state = checkpoint.load()                  # None at the start
    checkpoint.save({"step": 100, "model": trainable(model), ...})

What a run draws at random depends on its seed and step alone, so no generator is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Checkpoint:
    """One file; ``run`` identifies everything that the result depends on."""

    path: Path
    run: str

    def save(self, state: dict[str, Any]) -> None:
        """Write in one step, so that a kill leaves the previous state."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        torch.save({"run": self.run, **state}, temporary)
        temporary.replace(self.path)

    def load(self) -> dict[str, Any] | None:
        """The saved state, None where there is none.

        Raises:
            ValueError: it belongs to a run with other settings or inputs.
        """
        if not self.path.is_file():
            return None
        state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        if state["run"] != self.run:
            raise ValueError(
                f"{self.path} belongs to another run: its settings, data or starting weights differ. "
                "Remove its folder, or choose another --out."
            )
        return state


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters that require gradients, on the CPU."""
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def restore(model: nn.Module, values: dict[str, Tensor]) -> None:
    """Put what ``trainable`` returned back, in place."""
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if own.keys() != values.keys():
        raise ValueError(f"a checkpoint of {len(values)} tensors does not fit a model that trains {len(own)}")
    for name, parameter in own.items():
        parameter.copy_(values[name])
