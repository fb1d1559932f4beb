r"""Start and stop the service on this machine, without Docker.

    python deploy/launcher.py serve                  # until Ctrl-C or `stop`
    python deploy/launcher.py stop
    python deploy/launcher.py serve --bundle training/bundles/derma-mini        # and the saliency sidecar
    python deploy/launcher.py run -- derma classify lesion.jpg
    python deploy/launcher.py serve --host 10.0.0.5 --tls-certificate server.pem --tls-key server.key \
        --tls-ca ca.pem                             # for others who have a certificate

``run`` starts the service, runs one command against it and stops the service. What dies is
started again. Who may come in: docs/security.md.
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
from derma_semantics.logs import configure
from derma_semantics.terminal import help_text
from derma_semantics.transport import ModelControl
from options import STATE, read_settings, service_options
from server import POLL, TritonServer
from settings import Settings, write_private
from sidecar import Sidecar
from supervisor import Supervisor

logger = logging.getLogger("derma.launcher")

RETRY = 1.0
INTERRUPTED = 130


class Service:
    """The Triton server, the saliency sidecar and what watches over them."""

    def __init__(self, settings: Settings, deadline: float) -> None:
        self.settings = settings
        self.deadline = deadline
        self.server = TritonServer(settings)
        self.sidecar = Sidecar(settings)
        self.stopping = threading.Event()

    def start(self) -> None:
        """Start, and return when all parts answer, or when told to stop."""
        self._start_server()
        self.sidecar.start()
        self.server.wait_until_ready(self.deadline, self.stopping)
        self.sidecar.wait_until_healthy(self.deadline, self.stopping)

    def _start_server(self) -> None:
        self.server.start()
        _write_state(self.settings)
        logger.info("Triton starts; its log is %s", self.settings.log)

    def supervise(self) -> None:
        """Keep the service whole until ``stopping`` is set."""
        control = ModelControl(
            self.settings.grpc_url,
            timeout=self.deadline,
            tls=self.settings.own_tls,
            key=self.settings.admin_key,
        )
        supervisor = Supervisor(control)
        wait = POLL
        while not self.stopping.wait(wait):
            try:
                if not self.server.alive:
                    self._restart()
                if self.sidecar.wanted and not self.sidecar.alive:
                    logger.error(
                        "the saliency sidecar died; starting it again. Its last words:\n%s",
                        self.sidecar.last_words(),
                    )
                    self.sidecar.stop()
                    self.sidecar.start()
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
        self.sidecar.stop()
        self.server.stop()
        self.settings.key_file.unlink(missing_ok=True)
        _state_file(self.settings.state).unlink(missing_ok=True)

    def _restart(self) -> None:
        logger.error("Triton died; starting it again. Its last words:\n%s", self.server.last_words())
        self.server.stop()
        self._start_server()
        self.server.wait_until_ready(self.deadline, self.stopping)


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


@click.group(help=help_text(__doc__))
def main() -> None:
    try:
        configure("launcher")
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc


@main.command()
@service_options
def serve(deadline: float, **given: Any) -> None:
    """Serve until Ctrl-C or `stop`."""
    service = _service(given, deadline)
    _stop_on_signals(service)
    with _reported(), running(service):
        if not service.stopping.is_set():
            _announce(service.settings)
        service.stopping.wait()
    click.echo("stopped")


@main.command(context_settings={"ignore_unknown_options": True})
@service_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(deadline: float, command: tuple[str, ...], **given: Any) -> None:
    """Start the service, run COMMAND with DERMA_URL and the like set, stop the service."""
    service = _service(given, deadline)
    # Ended early, it must still clean up: SIGTERM unwinds as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _reported(), running(service):
        key = {"DERMA_ADMIN_KEY_FILE": str(service.settings.key_file.resolve())}
        environment = service.settings.environment(os.environ) | key
        try:
            code = subprocess.run(command, env=environment, check=False).returncode
        except KeyboardInterrupt:
            code = INTERRUPTED
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


def _service(given: dict[str, Any], deadline: float) -> Service:
    service = Service(read_settings(given), deadline)
    if (pid := _launcher_of(service.settings.state)) is not None:
        raise click.ClickException(f"the service already runs (process {pid}); `make stop` ends it")
    return service


def _stop_on_signals(service: Service) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: service.stopping.set())


def _announce(settings: Settings) -> None:
    plain = f"http://{settings.local_host}"
    click.echo(f"gRPC     {settings.host}:{settings.grpc_port}{_guarded(settings)}")
    click.echo(f"HTTP     {plain}:{settings.http_port}")
    click.echo(f"metrics  {plain}:{settings.metrics_port}/metrics")
    if settings.bundle:
        click.echo(f"saliency {settings.saliency_url}")
    click.echo(f"log      {settings.log}")
    if settings.audit_log:
        click.echo(f"audit    {settings.audit_log}")
    click.echo(f"key      {settings.key_file}, for operators")
    if settings.grpc_url != DEFAULT_URL:
        click.echo(f"clients  export DERMA_URL={settings.grpc_url}")
    if settings.open and settings.insecure:
        click.secho("warning  --insecure: all of these are open to anyone who reaches them", fg="yellow")
    click.echo("ready; Ctrl-C stops the service")


def _guarded(settings: Settings) -> str:
    if settings.tls is None:
        return ""
    return "  with mutual TLS" if settings.tls.ca else "  with TLS"


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
    write_private(settings.key_file, settings.admin_key)
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
