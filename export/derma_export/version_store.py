"""The folders of versions: the network's, its candidate's, and those that were withdrawn.

    put_in_service(repository, version, "rolled back")        # with the configuration that states it
    withdraw(repository, version, "rolled back")              # kept, where no server looks

A server that starts serves the highest version of the network's folder. So what was not tried yet, and
what was withdrawn, never lies there. Each step leaves what a server can load, if it is the last one.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from derma_export.repository import WITHDRAWN, restamp, withdrawn
from derma_semantics.domain.contract import CANDIDATE, NETWORK
from derma_serving.runtime.integrity import Tampered, read_manifest, versions

REASON = "withdrawn.json"


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
