"""Options that the commands share, and the client they describe."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from derma_semantics.commands.printing import Refused
from derma_semantics.domain.regular import read_regular
from derma_semantics.wire.connection import TLS
from derma_semantics.wire.defaults import DEFAULT_SALIENCY_URL, DEFAULT_TIMEOUT, DEFAULT_URL

if TYPE_CHECKING:
    from derma_semantics.client import DermaClient

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NEW_FOLDER = click.Path(file_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
REPORTS = click.option(
    "--sr",
    "reports",
    type=NEW_FOLDER,
    help="Folder for a DICOM Structured Report of each DICOM image; answers are given without it too.",
)
URL = click.option(
    "--url",
    default=DEFAULT_URL,
    envvar="DERMA_URL",
    show_default=True,
    help="gRPC address; several, separated by commas, take turns.  [env: DERMA_URL]",
)
SALIENCY_URL = click.option(
    "--saliency-url",
    default=DEFAULT_SALIENCY_URL,
    envvar="DERMA_SALIENCY_URL",
    show_default=True,
    help="Address of the saliency sidecar.  [env: DERMA_SALIENCY_URL]",
)
_TLS = (
    click.option("--tls", is_flag=True, help="Encrypt, and trust the system's root certificates."),
    click.option(
        "--ca", type=FILE, envvar="DERMA_CA", help="Encrypt, and trust this PEM file.  [env: DERMA_CA]"
    ),
    click.option(
        "--cert", type=FILE, envvar="DERMA_CERT", help="Your certificate, for mutual TLS.  [env: DERMA_CERT]"
    ),
    click.option("--key", type=FILE, envvar="DERMA_KEY", help="Its private key.  [env: DERMA_KEY]"),
    click.option(
        "--tls-name",
        envvar="DERMA_TLS_NAME",
        help="The name in the server's certificate, where it is not the host's.  [env: DERMA_TLS_NAME]",
    ),
)
# No option takes the token itself: everybody on a machine can read command lines.
_TOKEN = click.option(
    "--token-file",
    type=FILE,
    help="File with the token of the service; the variable DERMA_TOKEN can hold it instead.",
)


@dataclass(frozen=True)
class Service:
    """Where the services are, and how to talk to them."""

    url: str
    timeout: float
    saliency_url: str
    tls: TLS | None
    token: str | None

    def client(self) -> DermaClient:
        """A client; tests put a function with ``DermaClient``'s arguments into click's ``obj``."""
        from derma_semantics.client import DermaClient  # loads gRPC and numpy, which --help does not need

        make = click.get_current_context().obj or DermaClient
        try:
            return make(
                self.url,
                timeout=self.timeout,
                tls=self.tls,
                token=self.token,
                saliency_url=self.saliency_url,
            )
        except ValueError as exc:
            raise Refused(str(exc)) from exc


def connected(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a service, as the argument ``service``."""

    @functools.wraps(command)
    def wrapper(
        *,
        url: str,
        timeout: float,
        saliency_url: str,
        tls: bool,
        ca: Path | None,
        cert: Path | None,
        key: Path | None,
        tls_name: str | None,
        token_file: Path | None,
        **others: Any,
    ) -> Any:
        secure = _tls(ca, cert, key, tls_name) if tls or ca or cert or key or tls_name else None
        return command(Service(url, timeout, saliency_url, secure, _token(token_file)), **others)

    timeout = click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=DEFAULT_TIMEOUT,
        show_default=True,
        help="Seconds a request.",
    )
    for option in reversed((URL, timeout, SALIENCY_URL, *_TLS, _TOKEN)):
        option(wrapper)
    return wrapper


def _tls(ca: Path | None, cert: Path | None, key: Path | None, name: str | None) -> TLS:
    try:
        return TLS(ca=ca, certificate=cert, key=key, name=name)
    except (ValueError, OSError) as exc:
        raise Refused(str(exc)) from exc


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("DERMA_TOKEN") or None
    try:
        return read_regular(file).decode().strip()
    except (OSError, ValueError) as exc:
        raise Refused(f"--token-file: {exc}") from exc
