"""The launcher's options, and the ``Settings`` they describe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from derma_serving.settings import ServerTLS, Settings

FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
PORTS = (("saliency", "the saliency sidecar"), ("metrics", "Prometheus"), ("grpc", "gRPC"), ("http", "HTTP"))
TLS = (
    ("name", str, "A name in the certificate, where it does not hold the address."),
    ("ca", FILE, "Callers must show a certificate that this one signed: mutual TLS."),
    ("key", FILE, "The certificate's private key."),
    ("certificate", FILE, "Encrypt gRPC with this certificate (PEM)."),
)

STATE = click.option(
    "--state", type=FOLDER, default=Settings.state, show_default=True, help="Logs, process id and admin key."
)

REPOSITORY = click.option(
    "--repository",
    type=FOLDER,
    default=Settings.repository,
    show_default=True,
    help="Model repository to serve, as derma-export writes it.",
)


def service_options(command: Any) -> Any:
    """Give a command the options that ``read_settings`` takes, ``--deadline`` and ``--grace``."""
    for option in (
        click.option(
            "--grace",
            type=click.FloatRange(min=1),
            default=30,
            show_default=True,
            envvar="DERMA_GRACE",
            help="Seconds to answer what is under way and to end, once told to stop.  [env: DERMA_GRACE]",
        ),
        click.option("--deadline", type=float, default=120, show_default=True, help="Seconds to get ready."),
        *(_port(name, meaning) for name, meaning in PORTS),
        click.option(
            "--insecure",
            is_flag=True,
            help="Let every part listen on --host, for anyone: only where something else guards it.",
        ),
        *(_tls(name, kind, meaning) for name, kind, meaning in TLS),
        click.option(
            "--host",
            default=Settings.host,
            show_default=True,
            envvar="DERMA_HOST",
            help="IPv4 address where gRPC listens; all others stay on 127.0.0.1.  [env: DERMA_HOST]",
        ),
        STATE,
        click.option(
            "--profile",
            envvar="DERMA_PROFILE",
            help="Serve models with their configs/PROFILE.pbtxt, such as cuda.  [env: DERMA_PROFILE]",
        ),
        REPOSITORY,
        click.option(
            "--triton",
            type=EXISTING,
            envvar="DERMA_TRITON",
            help="A Triton with the native ONNX Runtime backend, such as a container's /opt/tritonserver, "
            "not the pip wheel's.  [env: DERMA_TRITON]",
        ),
        click.option(
            "--audit-log",
            type=click.Path(dir_okay=False, path_type=Path),
            envvar="DERMA_AUDIT_LOG",
            help="Append a line for each answer to this file, and answer only what is in it.  "
            "[env: DERMA_AUDIT_LOG]",
        ),
        click.option("--bundle", type=EXISTING, help="Start the saliency sidecar too, with this bundle."),
    ):
        command = option(command)
    return command


def read_settings(given: dict[str, Any]) -> Settings:
    """What was asked for; the admin key is that of DERMA_ADMIN_KEY, or a new one."""
    files = {name: given.pop(f"tls_{name}") for name, _, _ in TLS}
    if key := os.environ.get("DERMA_ADMIN_KEY"):
        given["admin_key"] = key
    try:
        made = Settings(**given, tls=_server_tls(**files))
    except (ValueError, OSError) as exc:
        raise click.UsageError(str(exc)) from exc
    if not made.repository.is_dir():
        raise click.UsageError(f"{made.repository} does not exist: `derma-export BUNDLE` writes it")
    if made.profile and made.profile not in made.profiles:
        known = ", ".join(made.profiles) or "none"
        raise click.UsageError(f"no model has a profile {made.profile!r}; there are: {known}")
    ports = list(made.ports.values())
    if len(set(ports)) < len([port for port in ports if port]):
        raise click.UsageError(f"every part needs a port of its own, got {ports}")
    return made


def _server_tls(
    certificate: Path | None, key: Path | None, ca: Path | None, name: str | None
) -> ServerTLS | None:
    if certificate and key:
        return ServerTLS(certificate, key, ca, name)
    if certificate or key or ca:
        raise ValueError("TLS needs both, --tls-certificate and --tls-key")
    return None


def _port(name: str, meaning: str) -> Any:
    return click.option(
        f"--{name}-port",
        type=click.IntRange(0, 65535),
        default=getattr(Settings, f"{name}_port"),
        show_default=True,
        envvar=f"{name.upper()}_PORT",
        help=f"Port for {meaning}.  [env: {name.upper()}_PORT]",
    )


def _tls(name: str, kind: Any, meaning: str) -> Any:
    variable = f"DERMA_TLS_{name.upper()}"
    return click.option(f"--tls-{name}", type=kind, envvar=variable, help=f"{meaning}  [env: {variable}]")
