"""Our service under a changed configuration, to be measured beside the one it comes from.

    variant = Variant("delay 1 ms", "dynamic_batching { max_queue_delay_microseconds: 1000 }")
    models = copy(Path("model_repository"), variant, state / "models")      # to be served

The original stays as it is, and its graphs are not copied but linked.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message
from tritonclient.grpc.model_config_pb2 import ModelConfig

from derma_semantics.domain.contract import MODELS, NETWORK


@dataclass(frozen=True)
class Variant:
    """A name, and what its configuration says otherwise, as in ``config.pbtxt``.

    The network's, unless the snippet states ``name: "derma_preprocess"`` or another model's.
    """

    name: str
    snippet: str

    def __str__(self) -> str:
        return f"variant {self.name!r}"


def copy(repository: Path, variant: Variant, target: Path, profile: str | None = None) -> Path:
    """A repository of links to this one's files, but for one configuration; returns ``target``.

    Args:
        target: folder that does not exist yet.
        profile: models that have a ``configs/<profile>.pbtxt`` are served with it.

    Raises:
        ValueError: the snippet does not parse, names an unknown model, or changes nothing.
    """
    model = _parse(variant, variant.snippet).name or NETWORK.name
    if model not in (known := [one.name for one in MODELS]):
        raise ValueError(f"{variant} changes the model {model!r}: choose from {', '.join(known)}")
    changed = _configuration(repository / model, profile).relative_to(repository)
    text = merged((repository / changed).read_text(), variant)
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(repository, target, ignore=ignored, copy_function=_link)
    (target / changed).unlink()
    (target / changed).write_text(text)
    return target


def merged(text: str, variant: Variant) -> str:
    """A configuration with what the snippet states in place of what it stated; lists as a whole.

    Raises:
        ValueError: the snippet does not parse, or changes nothing.
    """
    before = text_format.Parse(text, ModelConfig())
    after = text_format.Parse(text, ModelConfig())
    _clear_lists(after, _parse(variant, variant.snippet))
    # The text once more and not its message: a message does not tell a stated 0 from nothing.
    text_format.Merge(variant.snippet, after)
    if after == before:
        raise ValueError(f"{variant} changes nothing: the configuration states it already: {variant.snippet}")
    return str(text_format.MessageToString(after))


def _parse(variant: Variant, text: str) -> Any:
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as exc:
        raise ValueError(f"{variant} is no part of a config.pbtxt: {exc}: {text}") from exc


def _clear_lists(config: Message, snippet: Message) -> None:
    """Empty the lists that the snippet states: merging would add to them."""
    for field, value in snippet.ListFields():
        if field.message_type and field.message_type.GetOptions().map_entry:
            continue
        if field.is_repeated:
            config.ClearField(field.name)
        elif field.message_type:
            _clear_lists(getattr(config, field.name), value)


def _configuration(model: Path, profile: str | None) -> Path:
    """The file that Triton reads."""
    special = model / "configs" / f"{profile}.pbtxt"
    path = special if special.is_file() else model / "config.pbtxt"
    if not path.is_file():
        raise ValueError(f"{model.parent} holds no {model.name}/config.pbtxt")
    return path


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(Path(source).resolve())
