"""A model repository that answers only what its audit log holds.

    folder = audited(Path("model_repository"), Path(".run/audited"))

The models of the repository are linked, so that new versions are seen; but the public model hands
tickets on from the step that decodes to the one that answers. Those two make and ask for them where
the launcher says so: ``derma_serving.runtime.ticket``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as messages

from derma_semantics.domain.contract import CLASSIFIER, NETWORK, PREPROCESS, TICKET
from derma_semantics.domain.errors import ServiceUnavailable

# Headers that Triton hands to models, whatever their case.
HEADERS = "(?i)(derma-caller|x-request-id)"


def audited(repository: Path, target: Path) -> Path:
    """Make ``target`` anew from a repository; returns it.

    Raises:
        ServiceUnavailable: a canary is under way there.
    """
    ensemble = _with_tickets(repository / CLASSIFIER.name / "config.pbtxt")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for model in repository.resolve().iterdir():
        if (model / "config.pbtxt").is_file() and model.name != CLASSIFIER.name:
            (target / model.name).symlink_to(model, target_is_directory=True)
    shutil.copytree(repository / CLASSIFIER.name, target / CLASSIFIER.name)
    (target / CLASSIFIER.name / "config.pbtxt").write_text(text_format.MessageToString(ensemble))
    return target


def _with_tickets(public: Path) -> messages.ModelConfig:
    ensemble = text_format.Parse(public.read_text(), messages.ModelConfig())
    steps = {step.model_name: step for step in ensemble.ensemble_scheduling.step}
    if set(steps) != {PREPROCESS.name, NETWORK.name}:
        raise ServiceUnavailable(
            f"an audit log is kept of {PREPROCESS.name} and {NETWORK.name} alone, {CLASSIFIER.name} asks "
            f"{', '.join(steps)}: end the canary first, without the log (derma-rollout promote or abort)"
        )
    steps[PREPROCESS.name].output_map[TICKET] = TICKET
    steps[NETWORK.name].input_map[TICKET] = TICKET
    return ensemble
