"""Notices what Triton does not: a model whose Python process has died.

When a stub process dies, Triton answers every later request with an error, reports the
model ready and never restarts it. So the launcher compares, a few times a second, the
stubs that run with the instances that the ready models ask for, and reloads a model
that lacks one. Unloading first makes readiness false until the model serves again.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from derma_semantics.contract import CLASSIFIER, NETWORK, PREPROCESS
from derma_semantics.transport import ModelControl

STUB = "triton_python_backend_stub"
# The order in which the ensemble's parts are brought back; the public model comes last.
PARTS = (PREPROCESS.name, NETWORK.name)

logger = logging.getLogger("derma.supervisor")


def missing_stubs(control: ModelControl, server: int) -> list[str]:
    """Models with fewer running stubs than their ready versions need.

    Args:
        server: process id of ``tritonserver``.
    """
    ready = Counter(row["name"] for row in control.index() if row["state"] == "READY")
    running = _running_stubs(server)
    return [
        model
        for model in PARTS
        if running[model] < ready[model] * control.instances(model)
    ]


def reload_models(control: ModelControl, models: list[str]) -> None:
    """Bring models back whose stub died; the public model is not ready meanwhile."""
    for model in (CLASSIFIER.name, *models):
        control.unload(model)
    for model in (*models, CLASSIFIER.name):
        control.load(model)


def _running_stubs(server: int) -> Counter[str]:
    """Living stub processes of a server, counted by model."""
    stubs: Counter[str] = Counter()
    for process in Path("/proc").glob("[0-9]*"):
        arguments = _arguments_of_child(process, server)
        if arguments and arguments[0].endswith(STUB):
            # An instance is called <model>_<group>_<number>.
            stubs.update(model for model in PARTS if any(a.startswith(f"{model}_") for a in arguments))
    return stubs


def _arguments_of_child(process: Path, parent: int) -> list[str]:
    """Command line of a process if it is a living child of ``parent``, else nothing."""
    try:
        # Fields after the command's name, which may itself hold spaces: state, parent, ...
        state, ppid = (process / "stat").read_text().rpartition(")")[2].split()[:2]
        if int(ppid) != parent or state == "Z":
            return []
        return (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
