"""Compare the network's weights with what was exported, for a native backend, which loads them unchecked.

    check(Path(".run/models"))                         # before Triton starts
    check(Path(".run/models"), model=CANDIDATE.name)   # before this one is loaded

This project's backend checks by itself, at each load.
"""

from __future__ import annotations

from pathlib import Path

from derma_semantics.domain.contract import CANDIDATE, NETWORK
from derma_semantics.domain.errors import ServiceUnavailable
from derma_serving.model_config import located, parameters, read, serves_highest
from derma_serving.runtime.integrity import GRAPH, Tampered, check_version, versions


def check(repository: Path, profile: str | None = None, model: str = NETWORK.name) -> None:
    """Compare the weights that Triton would load with what was exported.

    Args:
        profile: models that have a ``configs/<profile>.pbtxt`` are served with it.
        model: what is to be loaded; with every other than the candidate, the network may be.

    Raises:
        ServiceUnavailable: one was altered, or what the configuration states of it.
    """
    name = CANDIDATE.name if model == CANDIDATE.name else NETWORK.name
    try:
        _check_model(repository / name, profile)
    except (Tampered, OSError, ValueError) as exc:
        raise ServiceUnavailable(f"altered weights do not serve: {exc}") from exc


def _check_model(folder: Path, profile: str | None) -> None:
    config = read(located(folder, profile))
    for version in versions(folder)[-1 if serves_highest(config) else 0 :]:
        check_version(version, parameters(config), config.default_model_filename or GRAPH)
