"""Where versions lie: with the network, with its candidate, or withdrawn.

    copy_configuration(repository)                            # the candidate's folder; export fills it
    put_in_service(repository, version, "rolled back")        # with the configuration that states it
    withdraw(repository, version, "rolled back")              # kept, where no server looks

A server that starts serves the highest version of the network's folder. So what was not tried yet, and
what was withdrawn, never lies there. Each step leaves what a server can load, if it is the last one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import derma_serving
from derma_export.repository import CONFIGURATION, WITHDRAWN, configurations, restamp, withdrawn
from derma_semantics.domain.contract import CANARY, CANDIDATE, CLASSIFIER, FACTS, NETWORK, PARAMETERS
from derma_serving.runtime.integrity import GRAPH, Tampered, read_manifest, versions

REASON = "withdrawn.json"
ROUTER = Path(derma_serving.__file__).parent / "canary"


def copy_configuration(repository: Path) -> None:
    """Give the candidate the network's configurations, under its own name; they are written anew."""
    source, target = repository / NETWORK.name, repository / CANDIDATE.name
    for path in configurations(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text().replace(f'name: "{NETWORK.name}"', f'name: "{CANDIDATE.name}"'))


def put_in_service(repository: Path, version: Path, reason: str) -> Path:
    """Make a version, wherever it lies, the network's highest; returns its folder.

    Those above it are withdrawn, for this reason.
    """
    target = repository / NETWORK.name / version.name
    if version != target:
        version.rename(target)
        (target / REASON).unlink(missing_ok=True)
    restamp(repository, *_stated(target))
    for other in versions(repository / NETWORK.name):
        if int(other.name) > int(target.name):
            withdraw(repository, other, reason)
    return target


def withdraw(repository: Path, version: Path, reason: str) -> Path:
    """Put a version where no server looks, with the reason beside it; returns its folder."""
    shelf = repository / NETWORK.name / WITHDRAWN
    shelf.mkdir(exist_ok=True)
    note = {"reason": reason, "when": datetime.now(UTC).isoformat(timespec="seconds")}
    target = shelf / version.name
    version.rename(target)
    (target / REASON).write_text(json.dumps(note, indent=2) + "\n")
    return target


def was_withdrawn(repository: Path, digest: str, precision: str) -> Path | None:
    """The last version that was made so from this bundle and withdrawn, if another serves."""
    if not versions(repository / NETWORK.name):
        return None
    for version in reversed(withdrawn(repository)):
        with suppress(Tampered):
            manifest = read_manifest(version)
            if (manifest.get("bundle_digest"), manifest.get("precision")) == (digest, precision):
                return version
    return None


def reason_of(version: Path) -> str:
    """Why a version was withdrawn."""
    path = version / REASON
    return str(json.loads(path.read_text())["reason"]) if path.is_file() else "unknown"


def clear_candidate(repository: Path, reason: str) -> list[Path]:
    """Withdraw what lies in the candidate's folder, and remove the folder; returns what was withdrawn."""
    folder = repository / CANDIDATE.name
    found = [withdraw(repository, version, reason) for version in versions(folder)]
    shutil.rmtree(folder, ignore_errors=True)
    return found


def percent(repository: Path) -> float | None:
    """The canary's share of the images, None where the public model asks the network itself."""
    if not _public(repository).is_file() or f'"{CANARY.name}"' not in _public(repository).read_text():
        return None
    text = (repository / CANARY.name / CONFIGURATION).read_text()
    return float(text.rpartition('string_value: "')[2].partition('"')[0])


def add_router(repository: Path, share: float) -> None:
    """Put the model that shares images out into the repository, or change its share in percent.

    Raises:
        ValueError: it is not at hand, because this package was installed without its checkout.
    """
    if not ROUTER.is_dir():
        raise ValueError(f"a canary needs {ROUTER}: run derma-rollout from the project's checkout")
    folder = repository / CANARY.name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROUTER / "model.py", folder / "1" / "model.py")
    shutil.copyfile(repository / NETWORK.name / "labels.txt", folder / "labels.txt")
    text = (ROUTER / CONFIGURATION).read_text()
    _write(folder / CONFIGURATION, text.replace('string_value: "0"', f'string_value: "{share:g}"'))


def remove_router(repository: Path) -> None:
    shutil.rmtree(repository / CANARY.name, ignore_errors=True)


def ask_router(repository: Path, wanted: bool) -> None:
    """Have the public model ask the router, or the network itself."""
    old, new = (NETWORK.name, CANARY.name) if wanted else (CANARY.name, NETWORK.name)
    text = _public(repository).read_text()
    _write(_public(repository), text.replace(f'model_name: "{old}"', f'model_name: "{new}"'))


def _public(repository: Path) -> Path:
    return repository / CLASSIFIER.name / CONFIGURATION


def _stated(version: Path) -> tuple[Mapping[str, str], int]:
    """What a configuration states of a version: its parameters and the size of its embeddings."""
    manifest = read_manifest(version)
    stated = {key: str(manifest[key]) for key in (*PARAMETERS, *FACTS) if key in manifest}
    values = {**dict.fromkeys(FACTS, ""), **stated}
    return values, int(manifest.get("embedding_size") or _embedding_size(version))


def _embedding_size(version: Path) -> int:
    """Of a version whose manifest, an older one, does not tell."""
    import onnx  # slow to import, and a roll-back is in a hurry

    graph: Any = onnx.load(str(version / GRAPH), load_external_data=False).graph
    output = next(output for output in graph.output if output.name == "EMBEDDING")
    return int(output.type.tensor_type.shape.dim[-1].dim_value)


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.replace(path)
