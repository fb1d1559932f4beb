r"""Start and stop the service on this machine, without Docker.

    derma serve                                # until Ctrl-C or `stop`
    derma stop
    derma serve --bundle training/bundles/derma-mini        # and the saliency sidecar
    derma run -- derma classify lesion.jpg
    derma serve --host 10.0.0.5 --tls-certificate server.pem --tls-key server.key \
        --tls-ca ca.pem                             # for others who have a certificate

``run`` starts the service, runs one command against it and stops the service. What dies is
started again. Who may come in: docs/security.md.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from derma_semantics.commands.terminal import Exit, help_text
from derma_semantics.domain.contract import NETWORK
from derma_semantics.domain.errors import ServiceUnavailable
from derma_semantics.domain.integrity import MANIFEST, sha256
from derma_semantics.wire.defaults import DEFAULT_URL
from derma_semantics.wire.logs import configure
from derma_serving.options import REPOSITORY, STATE, read_settings, service_options
from derma_serving.runtime.integrity import Tampered, read_manifest, versions
from derma_serving.settings import BUNDLE, POLL, Settings
from derma_serving.state import StateTaken, holder

if TYPE_CHECKING:
    from derma_serving.service import Service

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
    from derma_serving.service import Service, running  # loads gRPC and numpy, which --help does not need

    settings = _prepared(given, maps=True)
    service = Service(settings, deadline, grace)
    _stop_on_signals(service)
    with _reported(), running(service):
        if not service.stopping.is_set():
            _announce(settings, service.sidecar.wanted)
        service.stopping.wait()
    click.echo("stopped")


@main.command(context_settings={"ignore_unknown_options": True})
@service_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(deadline: float, grace: float, command: tuple[str, ...], **given: Any) -> None:
    """Start the service, run COMMAND with DERMA_URL and the like set, stop the service."""
    from derma_serving.service import Service, running

    settings = _prepared(given)
    service = Service(settings, deadline, grace)
    for number in SIGNALS:
        signal.signal(number, _interrupt_once)
    with _reported(), running(service):
        key = {"DERMA_ADMIN_KEY_FILE": str(settings.key_file.resolve())}
        environment = settings.environment(os.environ) | key
        try:
            code = subprocess.run(command, env=environment, check=False).returncode
        except KeyboardInterrupt:
            code = Exit.INTERRUPTED
    sys.exit(code)


@main.command()
@REPOSITORY
def prepare(repository: Path) -> None:
    """Make the model that comes with the package the newest of --repository, unless it is."""
    _provide(repository)


@main.command()
@STATE
@click.option("--deadline", type=float, default=60, show_default=True, help="Seconds to wait for the end.")
def stop(state: Path, deadline: float) -> None:
    """Stop the service that was started with the same --state."""
    if (pid := holder(state)) is None:
        click.echo("no service is running")
        return
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + deadline
    while holder(state) is not None:
        if time.monotonic() > end:
            raise click.ClickException(f"the service (process {pid}) did not stop within {deadline:.0f} s")
        threading.Event().wait(POLL)
    click.echo("stopped")


def _prepared(given: dict[str, Any], *, maps: bool = False) -> Settings:
    """The settings; and a model to serve, where the usual repository holds none.

    Args:
        maps: of the default model, heat maps are wanted too.
    """
    repository = given["repository"]
    if repository == Settings.repository:
        if not versions(repository / NETWORK.name):
            _provide(repository)
        if maps and given["bundle"] is None and _is_default(repository):
            given["bundle"] = BUNDLE
    return read_settings(given)


def _provide(repository: Path) -> None:
    from derma_serving.default import provide

    with _reported():
        provide(repository, say=click.echo, warn=lambda text: click.secho(f"warning: {text}", fg="yellow"))


def _is_default(repository: Path) -> bool:
    """Tell whether the newest version was made from the bundle that comes with the package."""
    found = read_manifest(versions(repository / NETWORK.name)[-1])
    return bool(found.get("bundle_digest") == sha256(BUNDLE / MANIFEST))


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


def _announce(settings: Settings, maps: bool) -> None:
    from derma_semantics.saliency import NO_MAPS

    plain = f"http://{settings.local_host}"
    click.echo(f"gRPC     {settings.host}:{settings.grpc_port}{_guarded(settings)}")
    click.echo(f"HTTP     {plain}:{settings.http_port}")
    click.echo(f"metrics  {plain}:{settings.metrics_port}/metrics")
    if settings.bundle:
        click.echo(f"saliency {settings.saliency_url if maps else NO_MAPS}")
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
    except StateTaken as exc:
        raise click.ClickException(str(exc)) from exc
    except Tampered as exc:
        raise click.ClickException(str(exc)) from exc
    except (ServiceUnavailable, OSError) as exc:
        click.echo(f"error: {exc}", err=True)
        sys.exit(Exit.UNAVAILABLE)
