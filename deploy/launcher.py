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
import queue
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

import weights
from backoff import BackOff
from derma_semantics.client import DEFAULT_URL
from derma_semantics.contract import CANARY, PREPROCESS
from derma_semantics.errors import DermaError, ServiceUnavailable
from derma_semantics.logs import configure
from derma_semantics.terminal import help_text
from derma_semantics.transport import ModelControl
from drain import drain
from options import STATE, read_settings, service_options
from pulse import Pulse
from server import POLL, TritonServer
from settings import Settings, write_private
from sidecar import Sidecar
from supervisor import PARTS, Supervisor

logger = logging.getLogger("derma.launcher")

RETRY = 1.0
INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)
LAST = 8.0  # seconds of the grace that Triton has to end in, once nothing is under way


class Service:
    """The Triton server, the saliency sidecar and what watches over them."""

    def __init__(self, settings: Settings, deadline: float, grace: float) -> None:
        self.settings = settings
        self.deadline = deadline
        self.grace = grace
        self.server = TritonServer(settings)
        self.sidecar = Sidecar(settings)
        self.stopping = threading.Event()
        self._server_pauses, self._sidecar_pauses = BackOff(), BackOff()
        self._sidecar_starts = False

    def start(self) -> None:
        """Start, and return when all parts answer, or when told to stop."""
        self._start_server()
        self.sidecar.start()
        self.server.wait_until_ready(self.deadline, self.stopping)
        self.sidecar.wait_until_healthy(self.deadline, self.stopping)

    def _start_server(self) -> None:
        self.server.start(self.stopping)
        _write_state(self.settings)
        logger.info("Triton starts; its log is %s", self.settings.log)

    def supervise(self) -> None:
        """Keep the service whole until ``stopping`` is set."""
        control = self._control()
        parts = (PREPROCESS.name, CANARY.name) if self.settings.native else PARTS
        supervisor = Supervisor(
            control,
            parts=parts,
            shared_memory=self.settings.shared_memory,
            stopping=self.stopping,
            check_weights=self._check_weights if self.settings.native else None,
        )
        wait = POLL
        while not self.stopping.wait(wait):
            try:
                self._mend_sidecar()
                self._mend_server(supervisor)
                wait = POLL
            except DermaError as exc:
                logger.error("could not mend the service, will try again: %s", exc)
                wait = RETRY
            except Exception:  # the watcher must outlive whatever it meets
                logger.exception("could not look after the service, will try again")
                wait = RETRY
        control.close()

    def stop(self, end: float) -> None:
        """Answer what was accepted, refuse what comes, and end by ``end`` (``time.monotonic``)."""
        self.stopping.set()
        self.sidecar.ask_to_stop()
        last = min(LAST, self.grace / 3)
        if self.server.alive:
            control = self._control()
            drain(control, end - last)
            control.close()
        self.server.stop(min(last, _left(end)))
        self.sidecar.stop(_left(end))
        self.settings.key_file.unlink(missing_ok=True)
        _state_file(self.settings.state).unlink(missing_ok=True)

    def _control(self) -> ModelControl:
        settings = self.settings
        return ModelControl(
            settings.grpc_url, timeout=self.deadline, tls=settings.own_tls, key=settings.admin_key
        )

    def _check_weights(self, model: str) -> None:
        weights.check(self.settings.repository, self.settings.profile, model)

    def _mend_server(self, supervisor: Supervisor) -> None:
        if self.server.alive:
            supervisor.check(self.server.pid)
        elif self._server_pauses.due():
            logger.error("Triton died; starting it again. Its last words:\n%s", self.server.last_words())
            self.server.stop()
            self._start_server()
            self.server.wait_until_ready(self.deadline, self.stopping)
            self._server_pauses.recovered()

    def _mend_sidecar(self) -> None:
        if not self.sidecar.wanted:
            return
        if self.sidecar.alive:
            if self._sidecar_starts and self.sidecar.healthy():
                self._sidecar_pauses.recovered()
                self._sidecar_starts = False
        elif self._sidecar_pauses.due():
            logger.error(
                "the saliency sidecar died; starting it again. Its last words:\n%s",
                self.sidecar.last_words(),
            )
            self.sidecar.stop()
            self.sidecar.start()
            self._sidecar_starts = True


class Watcher(threading.Thread):
    """Supervises the service until it is told to stop.

    It lives until ``release``, as the kernel ends a child with the thread that started it, and this one
    starts again what died.
    """

    def __init__(self, service: Service) -> None:
        super().__init__(name="supervisor", daemon=True)
        self.service = service
        self._idle = threading.Event()
        self._released = threading.Event()

    def run(self) -> None:
        self.service.supervise()
        self._idle.set()
        self._released.wait()

    def wait_until_idle(self, seconds: float) -> None:
        """Let it finish what it mends."""
        if self.is_alive():
            self._idle.wait(seconds)

    def release(self) -> None:
        self._released.set()


@contextmanager
def running(service: Service) -> Iterator[None]:
    """The service, supervised in the background, ended in every case."""
    watcher = Watcher(service)
    try:
        service.start()
        watcher.start()
        Pulse(service.server, service.stopping).start()
        yield
    finally:
        end = time.monotonic() + service.grace
        service.stopping.set()
        watcher.wait_until_idle(service.grace / 3)
        service.stop(end)
        watcher.release()


@click.group(help=help_text(__doc__))
def main() -> None:
    try:
        configure("launcher")
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc


@main.command()
@service_options
def serve(deadline: float, grace: float, **given: Any) -> None:
    """Serve until Ctrl-C or `stop`."""
    service = _service(given, deadline, grace)
    _stop_on_signals(service)
    with _reported(), running(service):
        if not service.stopping.is_set():
            _announce(service.settings)
        service.stopping.wait()
    click.echo("stopped")


@main.command(context_settings={"ignore_unknown_options": True})
@service_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(deadline: float, grace: float, command: tuple[str, ...], **given: Any) -> None:
    """Start the service, run COMMAND with DERMA_URL and the like set, stop the service."""
    service = _service(given, deadline, grace)
    for number in SIGNALS:
        signal.signal(number, _interrupt_once)
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


def _service(given: dict[str, Any], deadline: float, grace: float) -> Service:
    service = Service(read_settings(given), deadline, grace)
    if (pid := _launcher_of(service.settings.state)) is not None:
        raise click.ClickException(f"the service already runs (process {pid}); `make stop` ends it")
    return service


def _left(end: float) -> float:
    return max(0.0, end - time.monotonic())


def _stop_on_signals(service: Service) -> None:
    """A second signal changes nothing: the end is under way, and bounded by the grace.

    A signal may interrupt the main thread while that holds the event's lock, and would wait for it for
    ever: another thread sets the event.
    """
    told: queue.SimpleQueue[None] = queue.SimpleQueue()  # whose put may be interrupted by another

    def stop() -> None:
        told.get()
        service.stopping.set()

    threading.Thread(target=stop, name="signals", daemon=True).start()
    for number in SIGNALS:
        signal.signal(number, lambda *_: told.put(None))


def _interrupt_once(*_: Any) -> None:
    """Unwind, which stops the service; a second signal must not end that."""
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    raise KeyboardInterrupt


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
