"""Triton's ``config.pbtxt``: the one module that reads, changes and writes it.

    config = read(Path("model_repository/derma_biomedclip/config.pbtxt"))
    set_parameters(config, {"precision": "bf16"})
    write(Path(".run/models/derma_biomedclip/config.pbtxt"), config)

Comments of a file that is read are lost where it is written again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from google.protobuf import text_format
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from derma_semantics.domain.contract import Model
from derma_semantics.wire.protocol import new_config
from derma_serving.drafts import draft, put

CONFIGURATION = "config.pbtxt"
# A message, whose attributes no type checker sees.
ModelConfig: TypeAlias = Any


def read(path: Path) -> ModelConfig:
    """Read a configuration.

    Raises:
        ValueError: the file is not a model configuration.
        OSError: it cannot be read.
    """
    return parse(path.read_text(), str(path))


def parse(text: str, source: str) -> ModelConfig:
    """Parse a configuration; errors name its ``source``."""
    try:
        return text_format.Parse(text, new_config())
    except text_format.ParseError as exc:
        raise ValueError(f"{source} is not a model configuration: {exc}: {text[:200]}") from exc


def to_text(config: ModelConfig) -> str:
    return str(text_format.MessageToString(config, as_utf8=True))


def write(path: Path, config: ModelConfig) -> None:
    """Replace a configuration in one step."""
    put([draft(path, to_text(config).encode())])


def to_dict(config: ModelConfig) -> dict[str, Any]:
    """The configuration as Triton hands it to Python backends."""
    found: dict[str, Any] = MessageToDict(config, preserving_proto_field_name=True)
    return found


def located(model: Path, profile: str | None = None) -> Path:
    """The file of a model's folder that Triton reads, served with this profile."""
    special = model / "configs" / f"{profile}.pbtxt"
    return special if profile and special.is_file() else model / CONFIGURATION


def profiles(model: Path) -> list[Path]:
    """The configurations in a model's folder that replace its own under ``--profile``."""
    return sorted((model / "configs").glob("*.pbtxt"))


def serves_highest(config: ModelConfig) -> bool:
    """Tell whether Triton serves the highest version alone, as it does without a policy."""
    return not config.HasField("version_policy")


def parameters(config: ModelConfig) -> dict[str, str]:
    return {key: value.string_value for key, value in config.parameters.items()}


def set_parameters(config: ModelConfig, values: Mapping[str, str]) -> None:
    for key, value in values.items():
        config.parameters[key].string_value = value


def set_sizes(config: ModelConfig, model: Model, embedding: int | None = None) -> None:
    """Set the sizes of a model's outputs, which the tables of conditions and reasons decide.

    Args:
        embedding: size of EMBEDDING, which the bundle decides.
    """
    for output in config.output:
        shape = model.outputs[output.name].shape
        output.dims[:] = [embedding] if shape == (-1,) and embedding else shape


def steps(config: ModelConfig) -> dict[str, Any]:
    """An ensemble's steps by the model that each asks."""
    return {step.model_name: step for step in config.ensemble_scheduling.step}


def merge(config: ModelConfig, snippet: str, source: str) -> ModelConfig:
    """The configuration with what a snippet states in place of what it stated; lists as a whole.

    Raises:
        ValueError: the snippet is not a model configuration.
    """
    merged = type(config)()
    merged.CopyFrom(config)
    _clear_lists(merged, parse(snippet, source))
    # The text once more and not its message: a message does not tell a stated 0 from nothing.
    text_format.Merge(snippet, merged)
    return merged


def _clear_lists(config: Message, snippet: Message) -> None:
    """Empty the lists that the snippet states: merging would add to them."""
    for field, value in snippet.ListFields():
        if field.message_type and field.message_type.GetOptions().map_entry:
            continue
        if field.is_repeated:
            config.ClearField(field.name)
        elif field.message_type:
            _clear_lists(getattr(config, field.name), value)
