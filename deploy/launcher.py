"""Start and stop the service on this machine, without Docker.

    python deploy/launcher.py serve                  # until Ctrl-C or `stop`
    python deploy/launcher.py stop
    python deploy/launcher.py run -- derma classify lesion.jpg

``run`` starts the service, runs one command against it and stops the service.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from derma_semantics.client import DEFAULT_URL
from derma_semantics.errors import DermaError, ServiceUnavailable
from derma_semantics.terminal import help_text
from derma_semantics.transport import ModelControl
from server import POLL, Settings, TritonServer
from supervisor import Supervisor

logger = logging.getLogger("derma.launcher")

RETRY = 1.0


class Service:
    """The Triton server and what watches over it."""

    def __init__(self, settings: Settings, deadline: float) -> None:
        self.settings = settings
        self.deadline = deadline
        self.server = TritonServer(settings)
        self.stopping = threading.Event()

    def start(self) -> None:
        """Start, and return when the public model answers, or when told to stop."""
        self.server.start()
        _write_state(self.settings)
        logger.info("Triton starts; its log is %s", self.settings.log)
        self.server.wait_until_ready(self.deadline, self.stopping)

    def supervise(self) -> None:
        """Keep the service whole until ``stopping`` is set."""
        control = ModelControl(self.settings.grpc_url, timeout=self.deadline)
        supervisor = Supervisor(control)
        wait = POLL
        while not self.stopping.wait(wait):
            try:
                if not self.server.alive:
                    self._restart()
                supervisor.check(self.server.pid)
                wait = POLL
            except DermaError as exc:
                logger.error("could not mend the service, will try again: %s", exc)
                wait = RETRY
            except Exception:  # the watcher must outlive whatever it meets
                logger.exception("could not look after the service, will try again")
                wait = RETRY
        control.close()

    def stop(self) -> None:
        self.stopping.set()
        self.server.stop()
        _state_file(self.settings.state).unlink(missing_ok=True)

    def _restart(self) -> None:
        logger.error("Triton died; starting it again. Its last words:\n%s", self.server.last_words())
        self.server.stop()
        self.start()


@contextmanager
def running(service: Service) -> Iterator[None]:
    """The service, supervised in the background, ended in every case."""
    watcher = threading.Thread(target=service.supervise, name="supervisor")
    try:
        service.start()
        watcher.start()
        yield
    finally:
        service.stopping.set()
        if watcher.ident is not None:
            watcher.join(service.deadline)
        service.stop()


FOLDER = click.Path(file_okay=False, path_type=Path)
STATE = click.option(
    "--state", type=FOLDER, default=Settings.state, show_default=True, help="Logs and process id."
)


def _options(command: Any) -> Any:
    for option in (
        click.option("--deadline", type=float, default=120, show_default=True, help="Seconds to get ready."),
        *(
            click.option(
                f"--{name}-port",
                type=click.IntRange(0, 65535),
                default=getattr(Settings, f"{name}_port"),
                show_default=True,
                envvar=f"{name.upper()}_PORT",
                help=f"Port for {meaning}.  [env: {name.upper()}_PORT]",
            )
            for name, meaning in (("metrics", "Prometheus"), ("grpc", "gRPC"), ("http", "HTTP"))
        ),
        STATE,
        click.option(
            "--profile",
            envvar="DERMA_PROFILE",
            help="Serve models with their configs/PROFILE.pbtxt, such as cuda.  [env: DERMA_PROFILE]",
        ),
        click.option(
            "--repository",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            default=Settings.repository,
            show_default=True,
            help="Model repository to serve.",
        ),
    ):
        command = option(command)
    return command


@click.group(help=help_text(__doc__))
def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")


@main.command()
@_options
def serve(deadline: float, **given: Any) -> None:
    """Serve until Ctrl-C or `stop`."""
    service = Service(_settings(given), deadline)
    _stop_on_signals(service)
    with _reported(), running(service):
        if not service.stopping.is_set():
            _announce(service.settings)
        service.stopping.wait()
    click.echo("stopped")


@main.command(context_settings={"ignore_unknown_options": True})
@_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(deadline: float, command: tuple[str, ...], **given: Any) -> None:
    """Start the service, run COMMAND with DERMA_URL set, stop the service."""
    service = Service(_settings(given), deadline)
    # Ended early, it must still clean up: SIGTERM unwinds as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _reported(), running(service):
        environment = {**os.environ, "DERMA_URL": service.settings.grpc_url}
        code = subprocess.run(command, env=environment, check=False).returncode
    sys.exit(code)


@main.command()
@STATE
@click.option("--deadline", type=float, default=60, show_default=True, help="Seconds to wait for the end.")
def stop(state: Path, deadline: float) -> None:
    """Stop the service that was started with the same --state."""
    pid = _launcher_of(state)
    if pid is None:
        click.echo("no service is running")
        return
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + deadline
    while _launcher_of(state) is not None:
        if time.monotonic() > end:
            raise click.ClickException(f"the service (process {pid}) did not stop within {deadline:.0f} s")
        threading.Event().wait(POLL)
    click.echo("stopped")


def _settings(given: dict[str, Any]) -> Settings:
    settings = Settings(**given)
    if settings.profile and settings.profile not in settings.profiles:
        known = ", ".join(settings.profiles) or "none"
        raise click.UsageError(f"no model has a profile {settings.profile!r}; there are: {known}")
    ports = [settings.http_port, settings.grpc_port, settings.metrics_port]
    if len(set(ports)) < len([port for port in ports if port]):
        raise click.UsageError(f"HTTP, gRPC and metrics need different ports, got {ports}")
    if (pid := _launcher_of(settings.state)) is not None:
        raise click.ClickException(f"the service already runs (process {pid}); `make stop` ends it")
    return settings


def _stop_on_signals(service: Service) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: service.stopping.set())


def _announce(settings: Settings) -> None:
    click.echo(f"gRPC     {settings.grpc_url}")
    click.echo(f"HTTP     http://{settings.host}:{settings.http_port}")
    click.echo(f"metrics  http://{settings.host}:{settings.metrics_port}/metrics")
    click.echo(f"log      {settings.log}")
    if settings.grpc_url != DEFAULT_URL:
        click.echo(f"clients  export DERMA_URL={settings.grpc_url}")
    click.echo("ready; Ctrl-C stops the service")


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except ServiceUnavailable as exc:
        click.echo(f"error: {exc}", err=True)
        sys.exit(3)


def _state_file(state: Path) -> Path:
    return state / "service.json"


def _write_state(settings: Settings) -> None:
    _state_file(settings.state).write_text(json.dumps({"pid": os.getpid(), "grpc": settings.grpc_url}))


def _launcher_of(state: Path) -> int | None:
    """Process id of the launcher that keeps its state here, if it still runs."""
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        pid = int(json.loads(_state_file(state).read_text())["pid"])
        if b"launcher.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return None


if __name__ == "__main__":
    main()
