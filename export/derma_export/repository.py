"""Writing a new model version so that a server never sees half of it.

    version = install(Path("model_repository"), graph, manifest, parameters, embedding_size)

Everything is written under other names first and then renamed, so that a full disk or a kill
leaves what was there; the next export clears away what a killed one left. ``config.pbtxt`` stays
the file people wrote, and so do the profiles in ``configs/``: only the bundle's values are replaced,
and the result is parsed to prove that nothing else changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import model_config_pb2

from derma_export.facts import facts
from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.contract import CANARY, CANDIDATE, FACTS, MODELS, NETWORK, Model
from derma_serving.runtime.integrity import GRAPH, MANIFEST, check_version, read_manifest, versions
from derma_serving.runtime.lock import locked
from derma_training.bundle import Bundle

TEMPLATE = Path(__file__).resolve().parents[2] / "model_repository"
CONFIGURATION = "config.pbtxt"
INCOMING = ".incoming"
WITHDRAWN = "withdrawn"
# A quoted value in a configuration.
STRING = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""


def prepare(repository: Path) -> None:
    """Give a new repository the project's configurations; an existing one keeps its own.

    Raises:
        ValueError: they are not at hand, because this package was installed without its checkout;
            or the repository's own are older than the contract.
        OSError: the disk is full or cannot be written; called again, it finishes what it began.
    """
    repository.mkdir(parents=True, exist_ok=True)
    with locked(repository), naming(repository):
        for model in MODELS:
            if not (repository / model.name / CONFIGURATION).is_file():
                _copy_template(repository, model)
            _check_outputs(model, repository / model.name / CONFIGURATION)


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Say where writing failed: a write to a full disk names no file by itself."""
    try:
        yield
    except OSError as exc:
        exc.filename = exc.filename or str(folder)
        raise


def configuration(repository: Path) -> dict[str, Any]:
    """The network's configuration, as Triton hands it to Python backends; a new repository's will be ours.

    Raises:
        ValueError: neither is at hand.
    """
    path = repository / NETWORK.name / CONFIGURATION
    if not path.is_file():
        path = _template(repository, NETWORK) / CONFIGURATION
    config: dict[str, Any] = MessageToDict(_parse(path.read_text()), preserving_proto_field_name=True)
    return config


def newest(repository: Path) -> dict[str, Any] | None:
    """Manifest of the highest version, None if there is none.

    Raises:
        Tampered: it is missing or damaged.
    """
    found = versions(repository / NETWORK.name)
    return read_manifest(found[-1]) if found else None


def check(repository: Path) -> dict[str, dict[str, Any]]:
    """Manifests of all versions, by number, once each is found to be what was exported.

    Raises:
        Tampered: one is not; see ``integrity``.
    """
    stated = stamped_parameters(repository)
    return {v.name: check_version(v, stated) for v in versions(repository / NETWORK.name)}


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

    Raises:
        Tampered: servers would refuse it because it is not what was exported.
    """
    expected, found = parameters(bundle, precision), versions(repository / NETWORK.name)
    if not found or not expected.items() <= stamped_parameters(repository).items():
        return False
    manifest = check_version(found[-1], expected)
    return (
        expected.items() <= manifest.items()
        and not (labelled and manifest["gate"].get("balanced_accuracy") is None)
        and set(NETWORK.outputs) <= set(manifest.get("outputs", ()))
    )


def stamped_parameters(repository: Path) -> dict[str, str]:
    """The parameters that the network's configuration states."""
    config = _parse((repository / NETWORK.name / CONFIGURATION).read_text())
    return {key: value.string_value for key, value in config.parameters.items()}


def install(
    repository: Path,
    graph: Path,
    manifest: dict[str, Any],
    values: Mapping[str, str],
    embedding_size: int,
    model: Model = NETWORK,
) -> int:
    """Add ``graph`` as the next version and stamp the configuration.

    Args:
        manifest: written beside the graph; the version number is added.
        values: of the configuration's ``parameters``.
        model: the network, or its candidate, whose folder must be there.

    Returns:
        The new version number.

    Raises:
        OSError: the disk is full or cannot be written; everything is as it was.
        ValueError: a configuration lacks what must be stamped; everything is as it was.
    """
    folder = repository / model.name
    with locked(folder), _swept(folder), naming(folder):
        existing = versions(folder)
        version = _next_version(repository)
        drafts = _stamped(folder, values, embedding_size)
        incoming = Path(tempfile.mkdtemp(prefix=f"{INCOMING}-", dir=folder))
        shutil.copyfile(graph, incoming / GRAPH)
        (incoming / MANIFEST).write_text(json.dumps({"version": version, **manifest}, indent=2) + "\n")
        incoming.chmod(0o755)
        _flush(incoming / GRAPH, incoming / MANIFEST, incoming)
        steps = [(incoming, folder / str(version)), *drafts]
        # Killed between these, the configuration states the version before, which is there; where
        # there is none, it must not state a bundle that nothing was made from.
        for source, target in steps if existing else [*steps[1:], steps[0]]:
            source.replace(target)
        _flush(*{target.parent for _, target in steps})
    return version


def restamp(repository: Path, values: Mapping[str, str], embedding_size: int) -> None:
    """Have the network's configuration state another version's values; the arguments are ``install``'s."""
    folder = repository / NETWORK.name
    with locked(folder), _swept(folder), naming(folder):
        for source, target in _stamped(folder, values, embedding_size):
            source.replace(target)
        _flush(folder)


def withdrawn(repository: Path) -> list[Path]:
    """Folders of the versions that were taken out of service and kept, lowest first."""
    return versions(repository / NETWORK.name / WITHDRAWN)


def _next_version(repository: Path) -> int:
    """A number that no version has or had: one that was withdrawn keeps its own."""
    known = [versions(repository / model.name) for model in (NETWORK, CANDIDATE)]
    return 1 + max((int(v.name) for v in chain(*known, withdrawn(repository))), default=0)


def _stamped(folder: Path, values: Mapping[str, str], embedding_size: int) -> list[tuple[Path, Path]]:
    """Drafts of what must change in a model's folder: path now, path to rename it to."""
    texts = {folder / "labels.txt": "".join(f"{code}\n" for code in CODES)}
    texts |= {path: stamp(path.read_text(), values, embedding_size) for path in configurations(folder)}
    return [_draft(path, text) for path, text in texts.items() if not _holds(path, text)]


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


def configurations(model: Path) -> list[Path]:
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


def _copy_template(repository: Path, model: Model) -> None:
    """Copy a model's folder; its configuration last, so that a half-made copy is made again."""
    target, template = repository / model.name, _template(repository, model)
    for source in sorted(path for path in template.rglob("*") if path.is_file()):
        name = source.relative_to(template)
        if name != Path(CONFIGURATION) and _belongs(model, name.parts[0]) and "__pycache__" not in name.parts:
            (target / name.parent).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / name)
            _flush(target / name)
    draft, path = _draft(target / CONFIGURATION, _without_canary((template / CONFIGURATION).read_text()))
    draft.replace(path)


def _without_canary(text: str) -> str:
    """A canary under way where the project lies is not for other repositories."""
    return text.replace(f'"{CANARY.name}"', f'"{NETWORK.name}"')


def _belongs(model: Model, name: str) -> bool:
    """Of the network only the configuration: its versions are what export makes."""
    return model is not NETWORK or not (name.isdigit() or name.startswith(".") or name == WITHDRAWN)


@contextmanager
def _swept(model: Path) -> Iterator[None]:
    """Remove what an export that was killed left, and what this one leaves if it fails."""
    _sweep(model)
    try:
        yield
    finally:
        _sweep(model)


def _sweep(model: Path) -> None:
    for folder in model.glob(f"{INCOMING}-*"):
        shutil.rmtree(folder, ignore_errors=True)
    for draft in (*model.glob(f".*{INCOMING}"), *model.glob(f"configs/.*{INCOMING}")):
        draft.unlink(missing_ok=True)


def _draft(path: Path, text: str) -> tuple[Path, Path]:
    """Text on disk under another name, and the name it is meant for."""
    draft = path.with_name(f".{path.name}{INCOMING}")
    draft.write_text(text)
    _flush(draft)
    return draft, path


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


def _flush(*paths: Path) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _parse(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())
