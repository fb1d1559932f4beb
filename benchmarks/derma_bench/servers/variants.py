"""Our service under a changed configuration, to be measured beside the one it comes from.

    variant = Variant("delay 1 ms", "dynamic_batching { max_queue_delay_microseconds: 1000 }")
    models = copy(Path(".run/models"), variant, state / "models")      # to be served

The original stays as it is, and its graphs are not copied but linked.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from derma_semantics.domain.contract import MODELS, NETWORK
from derma_serving.model_config import ModelConfig, located, merge, parse, read, write


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
    model = parse(variant.snippet, str(variant)).name or NETWORK.name
    if model not in (known := [one.name for one in MODELS]):
        raise ValueError(f"{variant} changes the model {model!r}: choose from {', '.join(known)}")
    path = located(repository / model, profile)
    changed = merged(read(path), variant)
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(repository, target, ignore=ignored, copy_function=_link)
    write(target / path.relative_to(repository), changed)
    return target


def merged(before: ModelConfig, variant: Variant) -> ModelConfig:
    """A configuration with what the snippet states in place of what it stated; lists as a whole.

    Raises:
        ValueError: the snippet does not parse, or changes nothing.
    """
    after = merge(before, variant.snippet, str(variant))
    if after == before:
        raise ValueError(f"{variant} changes nothing: the configuration states it already: {variant.snippet}")
    return after


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(Path(source).resolve())
