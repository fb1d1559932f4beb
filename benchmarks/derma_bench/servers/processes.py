"""Processes that a benchmark starts: awaited with a deadline, ended by their id.

with process(["python", "-m", "service"], Path("service.log"), ready=lambda: healthy(url)) as pid:
    ...
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from derma_bench.load.senders import Connect

HOST = "127.0.0.1"
PORTS = range(19000, 30000)  # below what systems hand out by themselves
POLL = 0.2
GRACE = 40.0
START = 180.0


class ServiceFailed(RuntimeError):
    """A service did not get ready."""


@dataclass(frozen=True)
class Running:
    """A service that answers.

    Attributes:
        connect: opens a connection in the loop that uses it.
        url: of Triton's gRPC, for its statistics; empty for others.
        pid: of its first process; None where somebody else started it.
        facts: what a result says of it, such as versions.
    """

    name: str
    connect: Connect
    url: str = ""
    pid: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens now."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            found.append(port)
        if len(found) == count:
            return found
    raise ServiceFailed(f"fewer than {count} free ports from {PORTS.start} to {PORTS.stop - 1}")


@contextmanager
def process(
    command: Sequence[str],
    log: Path,
    ready: Callable[[], bool],
    *,
    name: str = "",
    deadline: float = START,
    environment: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """A process that got ready, ended in every case; yields its id.

    Args:
        name: in errors; by default the log's.
        environment: variables added to this process's.

    Raises:
        ServiceFailed: it ended, or was not ready in time; with the end of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        started = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # Ctrl-C reaches this program alone, which ends all in order
        )
    try:
        _await(started, name or log.stem, ready, deadline, log)
        yield started.pid
    finally:
        _end(started)


def healthy(url: str) -> bool:
    """Ask an HTTP service for its health."""
    with suppress(httpx.HTTPError):
        return httpx.get(url, timeout=2.0, trust_env=False).is_success
    return False


def _await(
    started: subprocess.Popen[bytes], name: str, ready: Callable[[], bool], deadline: float, log: Path
) -> None:
    end = time.monotonic() + deadline
    while not ready():
        ended = started.poll() is not None
        if ended or time.monotonic() > end:
            words = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            problem = "ended while it started" if ended else f"was not ready within {deadline:.0f} s"
            raise ServiceFailed(f"{name} {problem}:\n{words}")
        with suppress(subprocess.TimeoutExpired):
            started.wait(POLL)


def _end(started: subprocess.Popen[bytes]) -> None:
    """Politely, and after a while by force, with all that it started."""
    started.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        started.wait(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait(GRACE)
