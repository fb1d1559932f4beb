"""Real Triton servers for e2e and faults, on free ports.

Tests that leave a service as it was share one: ``service``. Those that change it, or its repository,
start their own with ``start_service``, or are in a folder whose ``service`` is another.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from derma_semantics import DermaClient

ROOT = Path(__file__).resolve().parents[1]
PORTS = ("http", "grpc", "metrics", "saliency")
# Services that tests start take it, and so do the tools that they run.
os.environ["DERMA_ADMIN_KEY"] = secrets.token_urlsafe(32)
LAUNCHER = [sys.executable, "-m", "derma_serving"]


@dataclass
class Service:
    """A service that the launcher runs."""

    launcher: subprocess.Popen
    repository: Path
    state: Path
    ports: dict[str, int]

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.ports['grpc']}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.ports['http']}"

    @property
    def saliency(self) -> str:
        return f"http://127.0.0.1:{self.ports['saliency']}"

    def processes(self) -> list[tuple[int, str]]:
        """Living processes of the server this launcher started: id and command line."""
        return [found for found in commands(str(self.state)) if "-m derma_serving " not in found[1]]

    def sidecars(self) -> list[int]:
        """Process ids of the saliency sidecar: the one that keeps, and the one it forked, which answers."""
        found = commands(f"--port={self.ports['saliency']}")
        pids = {pid for pid, command in found if "derma_saliency serve" in command}
        return sorted(pids, key=lambda pid: (parent(pid) in pids, pid))

    def segments(self) -> list[str]:
        return [p.name for p in Path("/dev/shm").glob(f"derma_{self.ports['grpc']}_*")]

    def stub(self, instance: str) -> int:
        """Process id of one model instance."""
        return next(pid for pid, command in self.processes() if f" {instance} " in command)


def commands(part: str) -> list[tuple[int, str]]:
    """Living processes whose command line holds ``part``: id and command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if part in command:
            found.append((int(process.name), command))
    return found


def parent(pid: int) -> int | None:
    """Its parent's process id, while it lives."""
    try:
        # After the command's name, which may itself hold spaces: state, parent, ...
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def free_ports() -> dict[str, int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in PORTS]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return dict(zip(PORTS, (s.getsockname()[1] for s in sockets), strict=True))


def start(repository: Path, state: Path, *more: str) -> Service:
    ports = free_ports()
    options = [*more, *(f"--{name}-port={port}" for name, port in ports.items())]
    launcher = subprocess.Popen(
        [*LAUNCHER, "serve", f"--repository={repository}", f"--state={state}", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    said = []
    for line in launcher.stdout:  # it has a deadline of its own
        said.append(line)
        if line.startswith("ready;"):
            return Service(launcher, repository, state, ports)
    launcher.wait(60)
    pytest.fail(f"the launcher ended:\n{''.join(said)}")


def stop(service: Service) -> str:
    """End the service as a user would; returns what the launcher printed."""
    service.launcher.send_signal(signal.SIGTERM)
    output, _ = service.launcher.communicate(timeout=60)
    return output


def lasting(repository: Path, state: Path, *options: str) -> Iterator[Service]:
    """A service for several tests; it must end cleanly."""
    service = start(repository, state, *options)
    yield service
    output = stop(service)
    assert service.launcher.returncode == 0, output
    assert service.processes() == []
    assert service.segments() == []


def until(condition: Callable[[], object], seconds: float = 10, what: str = "it holds") -> object:
    """Poll until ``condition`` holds; fail the test after ``seconds``."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"{what}: not within {seconds} s")
        time.sleep(0.02)
    return value


@pytest.fixture(scope="session", name="until")
def _until() -> Callable[..., object]:
    return until


@pytest.fixture(scope="session")
def launcher() -> list[str]:
    """The command that starts and stops services."""
    return LAUNCHER


@pytest.fixture(scope="session")
def exported(mini: Path) -> Path:
    """A model repository with the committed bundle as version 1; shared by all runs, to be copied."""
    from derma_training.bundle import Bundle
    from tests.exported import exported

    return exported(Bundle.open(mini))


@pytest.fixture(scope="session")
def repository(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it, which tests leave as it is."""
    return shutil.copytree(exported, tmp_path_factory.mktemp("repository") / "models")


@pytest.fixture(scope="session")
def service(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service that all tests share which leave it as it was."""
    yield from lasting(repository, tmp_path_factory.mktemp("state"))


@pytest.fixture
def client(service: Service) -> Iterator[DermaClient]:
    with DermaClient(service.url) as client:
        yield client


@pytest.fixture
def start_service(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Service]]:
    """Starts services with options of the launcher; the test may break or end them."""
    services = []

    def begin(*options: str, models: Path = repository) -> Service:
        services.append(start(models, tmp_path_factory.mktemp("state"), *options))
        return services[-1]

    yield begin
    for service in services:
        if service.launcher.poll() is None:
            stop(service)


@pytest.fixture(scope="module")
def start_lasting(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Service]]:
    """As ``start_service``, for services that the tests of a module share."""
    services = []

    def begin(*options: str) -> Service:
        services.append(start(repository, tmp_path_factory.mktemp("state"), *options))
        return services[-1]

    yield begin
    for service in services:
        stop(service)


@pytest.fixture
def another_service(start_service: Callable[..., Service]) -> Service:
    """One that the test ends itself."""
    return start_service()


@pytest.fixture
def ports() -> dict[str, int]:
    return free_ports()


@pytest.fixture
def derma(service: Service) -> Callable[..., subprocess.CompletedProcess]:
    """Run the ``derma`` command against the service."""

    def run(*arguments: object) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "derma_semantics", *map(str, arguments)]
        env = {**os.environ, "DERMA_URL": service.url}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, check=False)

    return run
