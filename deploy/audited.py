"""A model repository that answers only what its audit log holds.

    folder = audited(Path("model_repository"), Path(".run/audited"))

The models of the repository are linked, so that new versions are seen; but the public model gets a
last step, ``derma_audit``, through which every output passes: Triton skips steps whose outputs
nobody asked for.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as messages

from derma_semantics.contract import AUDIT, CLASSIFIER, MAX_BATCH, NETWORK

HERE = Path(__file__).resolve().parent
# Headers that Triton hands to models, whatever their case.
HEADERS = "(?i)(derma-caller|x-request-id)"


def audited(repository: Path, target: Path) -> Path:
    """Make ``target`` anew from a repository; returns it."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for model in repository.resolve().iterdir():
        if (model / "config.pbtxt").is_file() and model.name not in (CLASSIFIER.name, AUDIT):
            (target / model.name).symlink_to(model, target_is_directory=True)
    ensemble = _read(repository / CLASSIFIER.name / "config.pbtxt")
    labels = _labels(repository)
    step = _step(ensemble, labels)
    _insert(ensemble)
    shutil.copytree(repository / CLASSIFIER.name, target / CLASSIFIER.name)
    _write(ensemble, target / CLASSIFIER.name)
    code = target / AUDIT / "1"
    code.mkdir(parents=True)
    for file in (HERE / "audit" / "model.py", HERE / "audit_log.py"):
        shutil.copy2(file, code)
    for name in set(labels.values()):
        shutil.copy2(repository / NETWORK.name / name, target / AUDIT)
    _write(step, target / AUDIT)
    return target


def _step(ensemble: messages.ModelConfig, labels: dict[str, str]) -> messages.ModelConfig:
    """The step's configuration: it takes the image and every answer, and gives every answer."""
    config = messages.ModelConfig(name=AUDIT, backend="python", max_batch_size=MAX_BATCH)
    config.input.extend(ensemble.input)
    for output in ensemble.output:
        config.input.add(name=output.name, data_type=output.data_type, dims=output.dims)
        config.output.add(
            name=output.name,
            data_type=output.data_type,
            dims=output.dims,
            label_filename=labels.get(output.name, ""),
        )
    config.instance_group.add(kind=messages.ModelInstanceGroup.KIND_CPU, count=1)
    return config


def _insert(ensemble: messages.ModelConfig) -> None:
    """Rename what the steps answer, and let the last step give it the public names."""
    inner = {output.name: f"unaudited_{output.name}" for output in ensemble.output}
    steps = ensemble.ensemble_scheduling.step
    for step in steps:
        for tensors in (step.input_map, step.output_map):
            for key, value in list(tensors.items()):
                tensors[key] = inner.get(value, value)
    last = steps.add(model_name=AUDIT, model_version=-1)
    for image in ensemble.input:
        last.input_map[image.name] = image.name
    for name, before in inner.items():
        last.input_map[name] = before
        last.output_map[name] = name


def _labels(repository: Path) -> dict[str, str]:
    """Files with the labels of the network's outputs."""
    network = _read(repository / NETWORK.name / "config.pbtxt")
    return {output.name: output.label_filename for output in network.output if output.label_filename}


def _read(path: Path) -> messages.ModelConfig:
    return text_format.Parse(path.read_text(), messages.ModelConfig())


def _write(config: messages.ModelConfig, folder: Path) -> None:
    (folder / "config.pbtxt").write_text(text_format.MessageToString(config))
