"""Notices what Triton does not: a model whose Python process has died.

When a stub process dies, Triton answers every later request with an error, reports the
model ready and never restarts it. So the launcher compares, a few times a second, the
stubs that run with the instances that the ready models ask for, and reloads a model
that lacks one. Unloading first makes readiness false until the model serves again.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from derma_semantics.contract import AUDIT, CLASSIFIER, NETWORK, PREPROCESS
from derma_semantics.transport import ModelControl

STUB = "triton_python_backend_stub"
PARTS = (PREPROCESS.name, NETWORK.name, AUDIT)

logger = logging.getLogger("derma.supervisor")


class Supervisor:
    """Watches the models of a Triton server.

    Args:
        control: its model repository API.
        find_stubs: lists the living stubs of a server process: process id → model.
        kill: ends a process.
    """

    def __init__(
        self,
        control: ModelControl,
        *,
        find_stubs: Callable[[int], dict[int, str]] | None = None,
        kill: Callable[[int], None] | None = None,
    ) -> None:
        self.control = control
        self.find_stubs = find_stubs or living_stubs
        self.kill = kill or _kill
        self.broken: set[str] = set()

    def check(self, server: int) -> None:
        """Reload every model whose stub died; the public model is not ready meanwhile.

        Args:
            server: process id of ``tritonserver``.

        Raises:
            DermaError: a model could not be brought back; the next check tries again.
        """
        self.broken |= self._short_of_stubs(server)
        if not self.broken:
            return
        logger.error("a process of %s died; reloading", ", ".join(sorted(self.broken)))
        started = time.monotonic()
        self._reload(sorted(self.broken), server)
        self.broken.clear()
        logger.warning("serving again after %.1f s", time.monotonic() - started)

    def _ready(self) -> Counter[str]:
        return Counter(row["name"] for row in self.control.index() if row["state"] == "READY")

    def _short_of_stubs(self, server: int) -> set[str]:
        """Models with fewer living stubs than their ready versions need."""
        ready = self._ready()
        stubs = Counter(self.find_stubs(server).values())
        return {
            model
            for model in PARTS
            if ready[model] and stubs[model] < ready[model] * self.control.instances(model)
        }

    def _reload(self, models: list[str], server: int) -> None:
        old = [pid for pid, owner in self.find_stubs(server).items() if owner in models]
        ready = self._ready()
        for model in (CLASSIFIER.name, *models):
            if ready[model]:
                self.control.unload(model)
        # Triton cannot take a model apart that lost a stub: what is left of it would stay.
        for pid in old:
            self.kill(pid)
        for model in (*models, CLASSIFIER.name):
            self.control.load(model)


def living_stubs(server: int) -> dict[int, str]:
    """Living stub processes of a server: process id → model."""
    found: dict[int, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        arguments = _arguments_of_child(process, server)
        if arguments and arguments[0].endswith(STUB):
            # An instance is called <model>_<group>_<number>.
            owners = [m for m in PARTS if any(a.startswith(f"{m}_") for a in arguments)]
            found.update({int(process.name): owner for owner in owners})
    return found


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


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
