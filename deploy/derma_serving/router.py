"""The canary's router: a model that shares images out between the network and its candidate.

add(repository, 20)              # percent
ask(repository, True)            # the public model asks it instead of the network
share(repository)                # 20.0
"""

from __future__ import annotations

import shutil
from pathlib import Path

from derma_semantics.domain.contract import CANARY, CLASSIFIER, NETWORK
from derma_serving.drafts import writing
from derma_serving.model_config import (
    CONFIGURATION,
    ModelConfig,
    parameters,
    read,
    set_parameters,
    set_sizes,
    steps,
    write,
)

ROUTER = Path(__file__).parent / "canary"
PERCENT = "percent"
LABELS = "labels.txt"


def share(repository: Path) -> float | None:
    """The canary's share of the images in percent; None where the public model asks the network itself."""
    public = repository / CLASSIFIER.name / CONFIGURATION
    if not public.is_file() or CANARY.name not in steps(read(public)):
        return None
    return float(parameters(read(repository / CANARY.name / CONFIGURATION))[PERCENT])


def add(repository: Path, percent: float) -> None:
    """Put the router into the repository, or change its share."""
    folder = repository / CANARY.name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROUTER / "model.py", folder / "1" / "model.py")
    shutil.copyfile(repository / NETWORK.name / LABELS, folder / LABELS)
    config = read(ROUTER / CONFIGURATION)
    set_sizes(config, CANARY)
    set_parameters(config, {PERCENT: f"{percent:g}"})
    with writing(repository):
        write(folder / CONFIGURATION, config)


def remove(repository: Path) -> None:
    shutil.rmtree(repository / CANARY.name, ignore_errors=True)


def ask(repository: Path, wanted: bool) -> None:
    """Have the public model ask the router, or the network itself."""
    public = repository / CLASSIFIER.name / CONFIGURATION
    with writing(repository):
        config = read(public)
        route(config, wanted)
        write(public, config)


def route(config: ModelConfig, wanted: bool) -> None:
    """Put the router's name, or the network's, into the public model's step that answers."""
    (step,) = (step for name, step in steps(config).items() if name in (NETWORK.name, CANARY.name))
    step.model_name = CANARY.name if wanted else NETWORK.name
