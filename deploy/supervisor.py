"""Notices what Triton does not: a model whose Python process has died.

When a stub process dies, Triton answers every later request with an error, reports the
model ready and never restarts it. So the launcher compares, a few times a second, the
stubs that run with the instances that the ready models ask for, and reloads a model
that lacks one. Unloading first makes readiness false until the model serves again.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

from derma_semantics.contract import CLASSIFIER, NETWORK, PREPROCESS
from derma_semantics.transport import ModelControl

STUB = "triton_python_backend_stub"
PARTS = (PREPROCESS.name, NETWORK.name)


def models_to_mend(control: ModelControl, server: int) -> list[str]:
    """Models with fewer running stubs than their ready versions need.

    Args:
        server: process id of ``tritonserver``.
    """
    ready = Counter(row["name"] for row in control.index() if row["state"] == "READY")
    stubs = _stubs(server)
    return [
        model
        for model in PARTS
        if sum(owner == model for owner in stubs.values()) < ready[model] * control.instances(model)
    ]


def reload_models(control: ModelControl, models: list[str], server: int) -> None:
    """Bring models back whose stub died; the public model is not ready meanwhile."""
    old = [pid for pid, owner in _stubs(server).items() if owner in models]
    for model in (CLASSIFIER.name, *models):
        control.unload(model)
    # Triton cannot take a model apart that lost a stub: what is left of it would stay.
    for pid in old:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for model in (*models, CLASSIFIER.name):
        control.load(model)


def _stubs(server: int) -> dict[int, str]:
    """Living stub processes of a server: process id → model."""
    found: dict[int, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        arguments = _arguments_of_child(process, server)
        if arguments and arguments[0].endswith(STUB):
            # An instance is called <model>_<group>_<number>.
            owners = [m for m in PARTS if any(a.startswith(f"{m}_") for a in arguments)]
            found.update({int(process.name): owner for owner in owners})
    return found


def _arguments_of_child(process: Path, parent: int) -> list[str]:
    """Command line of a process if it is a living child of ``parent``, else nothing."""
    try:
        # After the command's name, which may itself hold spaces: state, parent, ...
        state, ppid = (process / "stat").read_text().rpartition(")")[2].split()[:2]
        if int(ppid) != parent or state == "Z":
            return []
        return (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
