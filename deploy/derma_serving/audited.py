"""Make a model repository that answers only what its audit log holds.

    folder = audited(Path(".run/models"), Path(".run/audited"))

The models of the repository are linked, so that new versions are seen. Only the public model is a copy:
it passes tickets from the step that decodes to the one that answers. Those two issue and check them where
the launcher asks for it: ``derma_serving.runtime.ticket``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from derma_semantics.domain.contract import CLASSIFIER, NETWORK, PREPROCESS, TICKET
from derma_semantics.domain.errors import ServiceUnavailable
from derma_serving.model_config import CONFIGURATION, ModelConfig, read, steps, write
from derma_serving.state import copied

# Headers that Triton hands to models, whatever their case.
HEADERS = "(?i)(derma-caller|x-request-id)"


def audited(repository: Path, target: Path) -> Path:
    """Make ``target`` anew from a repository; returns it.

    Raises:
        ServiceUnavailable: a canary is under way there.
    """
    ensemble = _with_tickets(read(repository / CLASSIFIER.name / CONFIGURATION))
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for model in repository.resolve().iterdir():
        if (model / CONFIGURATION).is_file() and model.name != CLASSIFIER.name:
            (target / model.name).symlink_to(model, target_is_directory=True)
    copied(repository / CLASSIFIER.name, target / CLASSIFIER.name)
    write(target / CLASSIFIER.name / CONFIGURATION, ensemble)
    return target


def _with_tickets(ensemble: ModelConfig) -> ModelConfig:
    asked = steps(ensemble)
    if set(asked) != {PREPROCESS.name, NETWORK.name}:
        raise ServiceUnavailable(
            f"an audit log is kept of {PREPROCESS.name} and {NETWORK.name} alone, {CLASSIFIER.name} asks "
            f"{', '.join(asked)}: end the canary first, without the log (derma-rollout promote or abort)"
        )
    asked[PREPROCESS.name].output_map[TICKET] = TICKET
    asked[NETWORK.name].input_map[TICKET] = TICKET
    return ensemble
