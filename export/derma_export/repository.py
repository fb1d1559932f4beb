"""Writing a new model version so that a server never sees half of it.

    version = install(Path("model_repository"), graph, manifest, parameters, embedding_size)

The version appears under its number by one rename. ``config.pbtxt`` stays the file
people wrote, and so do the profiles in ``configs/``: only the bundle's values are replaced,
and the result is parsed to prove that nothing else changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import model_config_pb2

from derma_export.facts import facts
from derma_export.lock import locked
from derma_semantics.conditions import CODES
from derma_semantics.contract import FACTS, MODELS, NETWORK, Model
from derma_training.bundle import Bundle

TEMPLATE = Path(__file__).resolve().parents[2] / "model_repository"
GRAPH = "model.onnx"
MANIFEST = "manifest.json"
# A quoted value in a configuration.
STRING = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""


def prepare(repository: Path) -> None:
    """Give a new repository the project's configurations; an existing one keeps its own.

    Raises:
        ValueError: they are not at hand, because this package was installed without its checkout;
            or the repository's own are older than the contract.
    """
    for model in MODELS:
        if not (repository / model.name / "config.pbtxt").is_file():
            # Of the network only the configuration: its versions are what export makes.
            skip = ("[0-9]*", ".incoming*") if model is NETWORK else ("__pycache__",)
            shutil.copytree(
                _template(repository, model),
                repository / model.name,
                ignore=shutil.ignore_patterns(*skip),
                dirs_exist_ok=True,
            )
        _check_outputs(model, repository / model.name / "config.pbtxt")


def configuration(repository: Path) -> dict[str, Any]:
    """The network's configuration, as Triton hands it to Python backends; a new repository's will be ours.

    Raises:
        ValueError: neither is at hand.
    """
    path = repository / NETWORK.name / "config.pbtxt"
    if not path.is_file():
        path = _template(repository, NETWORK) / "config.pbtxt"
    config: dict[str, Any] = MessageToDict(_parse(path.read_text()), preserving_proto_field_name=True)
    return config


def newest(repository: Path) -> dict[str, Any] | None:
    """Manifest of the highest version, None if there is none."""
    versions = _versions(repository / NETWORK.name)
    if not versions or not (versions[-1] / MANIFEST).is_file():
        return None
    manifest: dict[str, Any] = json.loads((versions[-1] / MANIFEST).read_text())
    return manifest


def parameters(bundle: Bundle, precision: str) -> dict[str, str]:
    """Values of ``contract.PARAMETERS`` and ``contract.FACTS`` for the network's configuration."""
    return {
        "bundle_name": bundle.name,
        "bundle_digest": bundle.digest,
        "prompts_digest": bundle.prompts_digest,
        "precision": precision,
        **facts(bundle),
    }


def is_newest(repository: Path, bundle: Bundle, precision: str, *, labelled: bool = False) -> bool:
    """Whether the highest version was made so from this bundle, and the configuration says so.

    Args:
        labelled: its gate must have seen labels.

    A version that lacks an output of today's contract is not: servers would refuse to load it.
    """
    expected, manifest = parameters(bundle, precision), newest(repository)
    return (
        manifest is not None
        and expected.items() <= manifest.items()
        and not (labelled and manifest["gate"].get("balanced_accuracy") is None)
        and set(NETWORK.outputs) <= set(manifest.get("outputs", ()))
        and expected.items() <= stamped_parameters(repository).items()
    )


def stamped_parameters(repository: Path) -> dict[str, str]:
    """The parameters that the network's configuration states."""
    config = _parse((repository / NETWORK.name / "config.pbtxt").read_text())
    return {key: value.string_value for key, value in config.parameters.items()}


def install(
    repository: Path,
    graph: Path,
    manifest: dict[str, Any],
    values: Mapping[str, str],
    embedding_size: int,
) -> int:
    """Add ``graph`` as the next version and stamp the configuration.

    Args:
        manifest: written beside the graph; the version number is added.
        values: of the configuration's ``parameters``.

    Returns:
        The new version number.
    """
    model = repository / NETWORK.name
    with locked(model):
        stamped = {path: stamp(path.read_text(), values, embedding_size) for path in _configurations(model)}
        version = max((int(folder.name) for folder in _versions(model)), default=0) + 1
        incoming = Path(tempfile.mkdtemp(prefix=".incoming-", dir=model))
        try:
            shutil.copyfile(graph, incoming / GRAPH)
            (incoming / MANIFEST).write_text(json.dumps({"version": version, **manifest}, indent=2) + "\n")
            incoming.chmod(0o755)
            _flush(incoming / GRAPH, incoming / MANIFEST, incoming)
            incoming.rename(model / str(version))
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        _flush(model)
        _replace(model / "labels.txt", "".join(f"{code}\n" for code in CODES))
        for path, text in stamped.items():
            _replace(path, text)
    return version


def stamp(text: str, values: Mapping[str, str], embedding_size: int) -> str:
    """Put the bundle's values into a configuration's text.

    ``FACTS`` are added where a configuration, written before they were, lacks them.

    Raises:
        ValueError: the text lacks another of them.
    """
    expected = _parse(text)
    for key, value in values.items():
        if key in FACTS and key not in expected.parameters:
            text = f'{text.rstrip()}\nparameters {{ key: "{key}" value {{ string_value: "" }} }}\n'
        expected.parameters[key].string_value = value
        pattern = rf'(key:\s*"{key}"\s*value\s*\{{\s*string_value:\s*){STRING}'
        text = re.sub(pattern, lambda m, v=value: m[1] + _quoted(v), text)  # type: ignore[misc]
    for output in expected.output:
        if output.name == "EMBEDDING":
            output.dims[:] = [embedding_size]
    text = re.sub(r'(name:\s*"EMBEDDING"[^}]*?dims:\s*\[)[^\]]*(\])', rf"\1 {embedding_size} \2", text)
    if _parse(text) != expected:
        raise ValueError(f"config.pbtxt must declare EMBEDDING and the parameters {', '.join(values)}")
    return text


def _quoted(value: str) -> str:
    """As protobuf's text format reads it; in single quotes where that keeps JSON legible."""
    quote = "'" if '"' in value else '"'
    escaped = value.replace("\\", r"\\").replace(quote, f"\\{quote}").replace("\n", r"\n")
    return f"{quote}{escaped}{quote}"


def _configurations(model: Path) -> list[Path]:
    """The profiles, and last the default one, which ``is_newest`` reads."""
    return [*sorted((model / "configs").glob("*.pbtxt")), model / "config.pbtxt"]


def _template(repository: Path, model: Model) -> Path:
    if not TEMPLATE.is_dir():
        raise ValueError(f"{repository} lacks {model.name}/config.pbtxt: copy model_repository there")
    return TEMPLATE / model.name


def _check_outputs(model: Model, path: Path) -> None:
    declared = {output.name for output in _parse(path.read_text()).output}
    if missing := [name for name in model.outputs if name not in declared]:
        raise ValueError(
            f"{path} does not declare {', '.join(missing)}: take it from the project's model_repository"
        )


def _versions(model: Path) -> list[Path]:
    if not model.is_dir():
        return []
    return sorted((v for v in model.iterdir() if v.is_dir() and v.name.isdigit()), key=lambda v: int(v.name))


def _replace(path: Path, text: str) -> None:
    """Write a file in one step; leave it alone if it would not change."""
    if path.is_file() and path.read_text() == text:
        return
    temporary = path.with_name(f".{path.name}.incoming")
    temporary.write_text(text)
    _flush(temporary)
    temporary.replace(path)


def _flush(*paths: Path) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _parse(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())
