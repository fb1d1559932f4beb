"""Whether the network's weights are what was exported, for a native backend, which loads them without a look.

    check(Path("model_repository"))                         # before Triton starts
    check(Path("model_repository"), model=CANDIDATE.name)   # before this one is loaded

Our own backend looks itself, at each load.
"""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as messages

from derma_semantics.domain.contract import CANDIDATE, NETWORK
from derma_semantics.domain.errors import ServiceUnavailable
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
    except (Tampered, OSError, text_format.ParseError) as exc:
        raise ServiceUnavailable(f"altered weights do not serve: {exc}") from exc


def _check_model(folder: Path, profile: str | None) -> None:
    config = text_format.Parse(_configuration(folder, profile).read_text(), messages.ModelConfig())
    stated = {key: value.string_value for key, value in config.parameters.items()}
    # Without a policy of its own, Triton serves the highest.
    served = versions(folder)[0 if config.HasField("version_policy") else -1 :]
    for version in served:
        check_version(version, stated, config.default_model_filename or GRAPH)


def _configuration(folder: Path, profile: str | None) -> Path:
    if profile and (special := folder / "configs" / f"{profile}.pbtxt").is_file():
        return special
    return folder / "config.pbtxt"
