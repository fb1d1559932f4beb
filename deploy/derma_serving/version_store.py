"""The folders of versions: the network's, its candidate's, and those that were withdrawn.

    put_in_service(repository, version, "rolled back")        # with the configuration that states it
    withdraw(repository, version, "rolled back")              # kept, where no server looks

A server that starts serves the highest version of the network's folder. So what was not tried yet, and
what was withdrawn, never lies there. Each step leaves what a server can load, if it is the last one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from derma_semantics.domain.contract import CANDIDATE, NETWORK
from derma_serving.repository import WITHDRAWN, is_newest, restamp, withdrawn
from derma_serving.runtime.integrity import Tampered, read_manifest, versions

REASON = "withdrawn.json"

Say = Callable[[str], object]


def is_there(
    repository: Path, statement: Mapping[str, str], *, labelled: bool = False, say: Say, warn: Say
) -> bool:
    """Tell whether a repository needs no new version, and why; its configurations are then made anew.

    That is where its newest version states this, or where such a one was withdrawn and another serves.

    Args:
        statement: what the manifest must say: ``contract.PARAMETERS``, ``contract.FACTS``.
        labelled: the gate must have seen labels.
        say, warn: are told a line of it.
    """
    digest, precision = statement["bundle_digest"], statement["precision"]
    told = f"{statement['bundle_name']} ({digest[:12]}), {precision}"
    try:
        newest = is_newest(repository, statement, labelled=labelled)
    except Tampered as exc:
        warn(f"{exc}; a new version takes its place")
        return False
    aside = None if newest else was_withdrawn(repository, digest, precision)
    if newest:
        say(f"{repository.resolve()} holds {told}, already")
    elif aside:
        warn(
            f"{told}, was version {aside.name} and was withdrawn ({reason_of(aside)}); "
            "what serves, serves on. `make rollout` tries it again"
        )
    else:
        return False
    restamp(repository, versions(repository / NETWORK.name)[-1])
    return True


def put_in_service(repository: Path, version: Path, reason: str) -> Path:
    """Make a version, wherever it lies, the network's highest; returns its folder.

    Those above it are withdrawn, for this reason.
    """
    target = repository / NETWORK.name / version.name
    if version != target:
        version.rename(target)
        (target / REASON).unlink(missing_ok=True)
    restamp(repository, target)
    for other in versions(repository / NETWORK.name):
        if int(other.name) > int(target.name):
            withdraw(repository, other, reason)
    return target


def withdraw(repository: Path, version: Path, reason: str) -> Path:
    """Put a version where no server looks, with the reason beside it; returns its folder."""
    target = repository / NETWORK.name / WITHDRAWN / version.name
    target.parent.mkdir(exist_ok=True)
    version.rename(target)
    note = {"reason": reason, "when": datetime.now(UTC).isoformat(timespec="seconds")}
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
