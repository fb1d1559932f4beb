"""Write a new model version so that a server never sees half of it.

    version = install(Path(".run/models"), graph, manifest)
    restamp(Path(".run/models"), folder)     # configurations anew, for a version that is there

A repository is made from the templates, the configurations that people wrote: each step writes them
anew, with what the version's own manifest says of it. A canary under way stays.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.contract import CANDIDATE, CLASSIFIER, FACTS, MODELS, NETWORK, PARAMETERS, Model
from derma_serving import router
from derma_serving.drafts import draft, flush, hidden, put, writing
from derma_serving.model_config import (
    CONFIGURATION,
    parameters,
    profiles,
    read,
    set_parameters,
    set_sizes,
    to_dict,
    to_text,
)
from derma_serving.runtime.integrity import GRAPH, MANIFEST, check_version, read_manifest, versions
from derma_serving.runtime.precisions import by_name
from derma_serving.settings import TEMPLATES

if TYPE_CHECKING:
    from derma_serving.runtime.engine import Engine

WITHDRAWN = "withdrawn"
HEADER = "# Written by derma-export from model_repository: change it there.\n"


def stated(repository: Path) -> dict[str, str]:
    """The parameters that the network's configuration states."""
    return parameters(read(repository / NETWORK.name / CONFIGURATION))


def check(repository: Path) -> dict[str, dict[str, Any]]:
    """Manifests of all versions, by number, once each is found to be what was exported.

    Raises:
        Tampered: one is not; see ``integrity``.
    """
    told = stated(repository)
    return {v.name: check_version(v, told) for v in versions(repository / NETWORK.name)}


def engine_of(precision: str) -> Engine:
    """The engine that the templates choose for processors.

    A graph for GPUs is computed by ONNX Runtime's own kernels here, fp16 in fp32.

    Raises:
        ValueError: the network's configuration asks for what does not exist.
    """
    from derma_serving.runtime.configuration import engine_for  # loads ONNX Runtime
    from derma_serving.runtime.engine import Engine

    if by_name(precision).gpu:
        return Engine("cpu", precision)
    config = read(TEMPLATES / NETWORK.name / CONFIGURATION)
    set_parameters(config, {"precision": precision})
    return replace(engine_for(to_dict(config), "CPU", cores=1), threads=0)


def is_newest(repository: Path, statement: Mapping[str, str], *, labelled: bool = False) -> bool:
    """Tell whether the highest version states this, with the contract and engine of today.

    Args:
        statement: what its manifest must say: ``contract.PARAMETERS``, ``contract.FACTS``.
        labelled: its gate must have seen labels.

    Raises:
        Tampered: servers would refuse it because it is not what was exported.
    """
    found = versions(repository / NETWORK.name)
    if not found:
        return False
    manifest = read_manifest(found[-1])
    today = {"outputs": list(NETWORK.outputs), "engine": engine_of(statement["precision"]).provider}
    if any(manifest.get(key) != value for key, value in {**statement, **today}.items()):
        return False
    check_version(found[-1], statement)
    return not labelled or manifest["gate"].get("balanced_accuracy") is not None


def install(repository: Path, graph: Path, manifest: Mapping[str, Any], model: Model = NETWORK) -> int:
    """Add ``graph`` as the next version and write the configurations that state it.

    Args:
        manifest: written beside the graph; the version number is added.
        model: the network; or its candidate, whose folder is then all that changes.

    Returns:
        The new version number.

    Raises:
        OSError: the disk is full or cannot be written; everything is as it was.
    """
    folder = repository / model.name
    folder.mkdir(parents=True, exist_ok=True)
    with writing(repository):
        target = folder / str(_next_number(repository))
        whole = {"version": int(target.name), **manifest}
        drafts = _drafts(repository, whole, MODELS if model is NETWORK else [model])
        incoming = hidden(target)
        incoming.mkdir()
        shutil.copyfile(graph, incoming / GRAPH)
        (incoming / MANIFEST).write_text(json.dumps(whole, indent=2) + "\n")
        flush(incoming / GRAPH, incoming / MANIFEST, incoming)
        # Killed between these, the configuration states the version before, which is there; where
        # there is none, it must not state a bundle that nothing was made from.
        put([target, *drafts] if versions(folder) else [*drafts, target])
        if model is NETWORK:
            _remove_strangers(repository)
    return int(target.name)


def restamp(repository: Path, version: Path) -> None:
    """Write all configurations anew, for a version of the network.

    Raises:
        Tampered: its manifest is missing or damaged.
        OSError: the disk is full or cannot be written; everything is as it was.
    """
    with writing(repository):
        put(_drafts(repository, read_manifest(version), MODELS))
        _remove_strangers(repository)


def withdrawn(repository: Path) -> list[Path]:
    """Folders of the versions that were taken out of service and kept, lowest first."""
    return versions(repository / NETWORK.name / WITHDRAWN)


def _next_number(repository: Path) -> int:
    """A number that no version has or had: one that was withdrawn keeps its own."""
    known = [versions(repository / model.name) for model in (NETWORK, CANDIDATE)]
    return 1 + max((int(v.name) for v in chain(*known, withdrawn(repository))), default=0)


def _drafts(repository: Path, manifest: Mapping[str, Any], models: Sequence[Model]) -> list[Path]:
    """Drafts of the files that must change.

    The network's come first: the public model must not ask for more than the network has.
    """
    canary = router.share(repository) is not None
    wanted: dict[Path, bytes] = {}
    for model in reversed(models):
        source = TEMPLATES / (NETWORK if model is CANDIDATE else model).name
        for path in _files(source):
            made = _made(path, model, manifest, canary)
            wanted[repository / model.name / path.relative_to(source)] = made
        if model in (NETWORK, CANDIDATE):
            wanted[repository / model.name / router.LABELS] = "".join(f"{code}\n" for code in CODES).encode()
    return [
        draft(path, content)
        for path, content in wanted.items()
        if not (path.is_file() and path.read_bytes() == content)
    ]


def _files(template: Path) -> list[Path]:
    """The files that people wrote for a model; of the network only its configurations."""
    if template.name == NETWORK.name:
        return [*profiles(template), template / CONFIGURATION]
    return sorted(p for p in template.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def _made(template: Path, model: Model, manifest: Mapping[str, Any], canary: bool) -> bytes:
    """A template's content as a repository has it: the network's configurations state the version."""
    if template.suffix != ".pbtxt":
        return template.read_bytes()
    config = read(template)
    answers = model in (NETWORK, CANDIDATE)
    set_sizes(config, model, manifest["embedding_size"] if answers else None)
    if answers:
        config.name = model.name
        set_parameters(config, {key: manifest[key] for key in (*PARAMETERS, *FACTS)})
    elif model is CLASSIFIER and canary:
        router.route(config, True)
    return (HEADER + to_text(config)).encode()


def _remove_strangers(repository: Path) -> None:
    """Remove profiles of which no template is left."""
    for path in (path for model in MODELS for path in profiles(repository / model.name)):
        if not (TEMPLATES / path.relative_to(repository)).is_file():
            path.unlink()
