"""Liveness probe of a part of the service: it kills a process that takes connections and answers none.

    triton = Target("Triton", lambda: server.process, "127.0.0.1", 8000, "/v2/health/live")
    LivenessProbe(triton, stopping).start()

Triton 2.51 that crashes may lock itself up in its own signal handler, and then neither serves nor ends; a
sidecar's event loop may be kept busy. This ends them, and whoever looks after dead processes starts others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from http.client import HTTPConnection, HTTPException
from typing import Protocol

INTERVAL = 0.5
TIMEOUT = 5.0  # seconds; a part that loads, or has more to do than it can, answers in a few milliseconds

logger = logging.getLogger("derma.liveness")


class Killable(Protocol):
    """A process, of which nothing else is asked."""

    def kill(self) -> None: ...


@dataclass(frozen=True)
class Target:
    """A part that is probed over HTTP: gRPC's answers of this kind wait while a model is loaded.

    Attributes:
        process: gives the process that lives now, None where there is none.
    """

    name: str
    process: Callable[[], Killable | None]
    host: str
    port: int
    path: str


class Health(Enum):
    """The outcome of one probe; UNREACHABLE where something starts or ends."""

    ALIVE = "alive"
    HANGING = "hanging"
    UNREACHABLE = "unreachable"


class LivenessProbe(threading.Thread):
    """Probes until ``stopping`` is set. A process is judged once it has answered: until then, it loads."""

    def __init__(self, target: Target, stopping: threading.Event) -> None:
        super().__init__(name=f"liveness of {target.name}", daemon=True)
        self.target = target
        self.stopping = stopping

    def run(self) -> None:
        target, loaded = self.target, None
        while not self.stopping.wait(INTERVAL):
            process = target.process()
            if process is None:
                continue
            health = probe(target.host, target.port, target.path)
            if health is Health.ALIVE:
                loaded = process
            elif health is Health.HANGING and process is loaded and not self.stopping.is_set():
                logger.error("%s has not answered for %.0f s; ending it", target.name, TIMEOUT)
                process.kill()


def probe(host: str, port: int, path: str, timeout: float = TIMEOUT) -> Health:
    """Ask once; HANGING if something listens there and does not answer within ``timeout`` seconds."""
    connection = HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path)
        connection.getresponse().read()
    except TimeoutError:
        return Health.HANGING
    except (OSError, HTTPException):
        return Health.UNREACHABLE
    finally:
        connection.close()
    return Health.ALIVE
