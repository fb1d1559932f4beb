"""Supervisor of Triton's models: reloads one whose Python process has died.

When a stub process dies, Triton answers every later request with an error, reports the
model ready and never restarts it. So the launcher compares, a few times a second, the
stubs that run with the instances that the ready models ask for, and reloads a model
that lacks one. Unloading first makes readiness false until the model serves again.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from derma_semantics.domain.contract import CANARY, CANDIDATE, CLASSIFIER, NETWORK, PREPROCESS
from derma_semantics.wire.transport import ModelControl
from derma_serving import segments

STUB = "triton_python_backend_stub"
PARTS = (PREPROCESS.name, NETWORK.name, CANDIDATE.name, CANARY.name)

logger = logging.getLogger("derma.supervisor")


class _Stopping(Exception):
    """The service ends: what is broken stays so."""


class Supervisor:
    """Watches the models of a Triton server.

    Args:
        control: its model repository API.
        parts: models that run in stubs; the container's ONNX Runtime backend needs none.
        shared_memory: how the names of the server's segments in /dev/shm begin.
        stopping: once it is set, nothing is unloaded, killed or loaded any more.
        check_weights: called with the first of the models that load together, and may refuse. It
            reads whole graphs, while the service is down.
        find_stubs: lists the living stubs of a server process: process id → model.
        kill: ends a process.
    """

    def __init__(
        self,
        control: ModelControl,
        *,
        parts: Sequence[str] = PARTS,
        shared_memory: str | None = None,
        stopping: threading.Event | None = None,
        check_weights: Callable[[str], None] | None = None,
        find_stubs: Callable[[int], dict[int, str]] | None = None,
        kill: Callable[[int], None] | None = None,
    ) -> None:
        self.control = control
        self.parts = parts
        self.shared_memory = shared_memory
        self.stopping = stopping or threading.Event()
        self.check_weights = check_weights or (lambda _: None)
        self.find_stubs = find_stubs or living_stubs
        self.kill = kill or _kill
        self.broken: set[str] = set()
        self.completed: int | None = None

    def check(self, server: int) -> None:
        """Reload every model whose stub died; the public model is not ready meanwhile.

        Args:
            server: process id of ``tritonserver``.

        Raises:
            DermaError: a model could not be brought back; the next check tries again.
        """
        with suppress(_Stopping):
            self._check(server)

    def _check(self, server: int) -> None:
        self._complete_canary(server)
        self.broken |= self._short_of_stubs(server)
        if not self.broken:
            return
        logger.error("a process of %s died; reloading", ", ".join(sorted(self.broken)))
        started = time.monotonic()
        others = [pid for pid, model in self.find_stubs(server).items() if model not in self.broken]
        before = self._unused_segments(others)
        self._reload(sorted(self.broken - self._gone()), server)
        self.broken.clear()
        # A segment that is new may be of a model that loads just now.
        segments.remove(before & self._unused_segments(self.find_stubs(server)))
        logger.warning("serving again after %.1f s", time.monotonic() - started)

    def _complete_canary(self, server: int) -> None:
        """Load the candidate of a canary that was in progress when Triton was restarted.

        Once: the canary does without one that cannot be loaded.
        """
        ready = self._ready()
        if ready[CANARY.name] and not ready[CANDIDATE.name] and server != self.completed:
            self.completed = server
            self._load(CANDIDATE.name)

    def _gone(self) -> set[str]:
        """Parts of a canary that ended meanwhile."""
        return {CANDIDATE.name, CANARY.name} - {row["name"] for row in self.control.index()}

    def _ready(self) -> Counter[str]:
        return Counter(row["name"] for row in self.control.index() if row["state"] == "READY")

    def _short_of_stubs(self, server: int) -> set[str]:
        """Models with fewer living stubs than their ready versions need."""
        ready = self._ready()
        stubs = Counter(self.find_stubs(server).values())
        ready &= self._ready()  # a version that is unloaded meanwhile lacks no process
        return {
            model
            for model in self.parts
            if ready[model] and stubs[model] < ready[model] * self.control.instances(model)
        }

    def _unused_segments(self, stubs: Iterable[int]) -> set[Path]:
        return segments.unused(self.shared_memory, stubs) if self.shared_memory else set()

    def _reload(self, models: list[str], server: int) -> None:
        old = [pid for pid, owner in self.find_stubs(server).items() if owner in models]
        ready = self._ready()
        # Nobody sees that a candidate is away: the network answers for it.
        public = [] if self.broken <= {CANDIDATE.name} else [CLASSIFIER.name]
        for model in (*public, *models):
            if ready[model]:
                self._go_on()
                self.control.unload(model)
        # Triton cannot take a model apart that lost a stub: what is left of it would stay.
        for pid in old:
            self._go_on()
            self.kill(pid)
        # The candidate last: where it cannot be loaded, nothing else must wait for it.
        needed = [model for model in models if model != CANDIDATE.name]
        self._load(*needed, *public)
        self.broken &= {CANDIDATE.name}
        self._load(*(model for model in models if model == CANDIDATE.name))

    def _load(self, *models: str) -> None:
        """The candidate by itself, whose weights are its own; the others together, with the network's."""
        if models:
            self.check_weights(models[0])
        for model in models:
            self._go_on()
            self.control.load(model)

    def _go_on(self) -> None:
        """A drain has unloaded the public model, and what is under way passes through the others."""
        if self.stopping.is_set():
            raise _Stopping


def living_stubs(server: int) -> dict[int, str]:
    """Living stub processes of a server: process id → model."""
    found: dict[int, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        arguments = _arguments_of_child(process, server)
        if arguments and arguments[0].endswith(STUB):
            # An instance is called <model>_<group>_<number>.
            owners = [m for m in PARTS if any(re.fullmatch(rf"{m}_\d+_\d+", a) for a in arguments)]
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
