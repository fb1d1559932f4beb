"""Where the service listens, who may come in, what it serves, where it keeps its state.

    Settings(host="10.0.0.5", tls=ServerTLS(Path("server.pem"), Path("server.key"), Path("ca.pem")))

Beyond this machine only gRPC listens, and only where callers must show a certificate, unless
``insecure`` is set: Triton's HTTP, its metrics and the saliency sidecar have no encryption.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path

from derma_semantics.wire.admin import HEADER
from derma_semantics.wire.connection import TLS

_CHECKOUT = Path(__file__).resolve().parents[2]
_IN_CHECKOUT = (_CHECKOUT / "model_repository").is_dir()
# Where environments and all that is made lie: the checkout; the working directory for an installed wheel.
ROOT = _CHECKOUT if _IN_CHECKOUT else Path.cwd()
# What a wheel brings along: the models as people wrote them, from which what is served is made; the bundle
# that is served where no other was exported; and its graph, without the weights that the bundle holds.
_PACKAGE = Path(__file__).parent
TEMPLATES = (_CHECKOUT if _IN_CHECKOUT else _PACKAGE) / "model_repository"
BUNDLE = (_CHECKOUT / "training" if _IN_CHECKOUT else _PACKAGE) / "bundles" / "derma-mini"
KEPT_GRAPH = BUNDLE.parents[1] / "graphs" / BUNDLE.name
LOCAL = "127.0.0.1"
POLL = 0.2  # seconds between two looks at a process
# What an operator does, and what a caller who only sends photographs never needs.
RESTRICTED = ("model-repository", "shared-memory", "statistics", "trace", "logging")
_KEY = re.compile(r"[A-Za-z0-9_-]{16,}")


def check_key(key: str) -> str:
    """Refuse an admin key that is short, or that Triton could not read.

    Raises:
        ValueError: it says why, without the key.
    """
    if not _KEY.fullmatch(key):
        raise ValueError("the admin key must be 16 or more letters, digits, - and _")
    return key


@dataclass(frozen=True)
class ServerTLS:
    """Encryption of gRPC, as paths of PEM files.

    Args:
        certificate: the server's, with the chain that signed it.
        key: its private key.
        ca: callers must show a certificate that this one signed; None: anyone may call.
        name: a name in the certificate, where it does not hold the address itself.

    Raises:
        ValueError, OSError: files that do not fit, or cannot be read.
    """

    certificate: Path
    key: Path
    ca: Path | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        TLS(self.ca, self.certificate, self.key)

    @cached_property
    def own(self) -> TLS:
        """How this machine speaks to its server: it knows the certificate, and shows the same."""
        if self.ca is None:
            return TLS(self.certificate, name=self.name)
        return TLS(self.certificate, self.certificate, self.key, self.name)

    @property
    def arguments(self) -> list[str]:
        """Triton's options."""
        return [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={self.certificate.resolve()}",
            f"--grpc-server-key={self.key.resolve()}",
            *(["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={self.ca.resolve()}"] if self.ca else []),
        ]


@dataclass(frozen=True)
class Settings:
    """Of one service.

    Attributes:
        host: IPv4 address where gRPC listens, with ``insecure`` every part.
        repository: what `derma-export` made, and what is served.
        profile: models that have a ``configs/<profile>.pbtxt`` are served with it.
        triton: folder of a Triton that is installed; None for the one of the pip wheel.
        bundle: what the saliency sidecar loads; None for no sidecar.
        audit_log: the file that gets a line for each answer; None for no audit log.
        admin_key: opens what ``RESTRICTED`` names.

    Raises:
        ValueError: an address beyond this machine without mutual TLS; an admin key that is none.
    """

    state: Path = ROOT / ".run"
    repository: Path = state / "models"
    host: str = LOCAL
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    saliency_port: int = 8003
    profile: str | None = None
    triton: Path | None = None
    bundle: Path | None = None
    audit_log: Path | None = None
    tls: ServerTLS | None = None
    insecure: bool = False
    admin_key: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    def __post_init__(self) -> None:
        check_key(self.admin_key)
        if self.open and not self.insecure and not (self.tls and self.tls.ca):
            raise ValueError(
                f"on {self.host} anyone could ask, and read the photographs of others: "
                "give --tls-certificate, --tls-key and --tls-ca; or leave it on 127.0.0.1, "
                "behind the proxy of docs/security.md; or say --insecure"
            )

    @property
    def open(self) -> bool:
        """Whether others than this machine can reach it."""
        return not _ip(self.host).is_loopback

    @property
    def native(self) -> bool:
        """Whether a native backend runs the graphs: one that executes none of this project's code.

        Where an audit log is kept ours does, in every Triton: it writes the log.
        """
        return self.triton is not None and self.audit_log is None

    @property
    def local_host(self) -> str:
        """Where the parts without encryption listen."""
        return self.host if self.insecure or not self.open else LOCAL

    @property
    def profiles(self) -> list[str]:
        """Names that ``profile`` may have."""
        return sorted({path.stem for path in self.repository.glob("*/configs/*.pbtxt")})

    @property
    def grpc_url(self) -> str:
        """For this machine."""
        return f"{_reachable(self.host)}:{self.grpc_port}"

    @property
    def saliency_url(self) -> str:
        return f"http://{_reachable(self.local_host)}:{self.saliency_port}"

    @property
    def own_tls(self) -> TLS | None:
        """How this machine speaks gRPC to the service."""
        return self.tls.own if self.tls else None

    @property
    def ports(self) -> dict[str, int]:
        """What it listens on, by the name of the option."""
        names = ["http_port", "grpc_port", "metrics_port", *(["saliency_port"] if self.bundle else [])]
        return {name: getattr(self, name) for name in names}

    @property
    def log(self) -> Path:
        return self.state / "triton.log"

    @property
    def key_file(self) -> Path:
        """Where the admin key lies while the service runs, for its owner alone."""
        return self.state / "admin.key"

    @property
    def shared_memory(self) -> str:
        """Prefix of this service's segments in /dev/shm, to tell them from another's."""
        return f"derma_{self.grpc_port}_"

    @property
    def restrictions(self) -> list[str]:
        """Triton's options that ask for the admin key."""
        closed = f"{','.join(RESTRICTED)}:{HEADER}={self.admin_key}"
        return [f"--grpc-restricted-protocol={closed}", f"--http-restricted-api={closed}"]

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """``inherited``, with what tells a client on this machine how to reach the service."""
        tls = self.own_tls
        values = {
            "DERMA_URL": self.grpc_url,
            "DERMA_SALIENCY_URL": self.bundle and self.saliency_url,
            "DERMA_CA": tls and tls.ca,
            "DERMA_CERT": tls and tls.certificate,
            "DERMA_KEY": tls and tls.key,
            "DERMA_TLS_NAME": tls and tls.name,
        }
        kept = {name: value for name, value in inherited.items() if name not in (*values, "DERMA_ADMIN_KEY")}
        return kept | {name: str(value) for name, value in values.items() if value is not None}


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, anew."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
        file.write(text)


def _ip(host: str) -> IPv4Address:
    try:
        return IPv4Address(host)
    except ValueError as exc:
        raise ValueError(f"the host must be an IPv4 address, such as 127.0.0.1, got {host!r}") from exc


def _reachable(host: str) -> str:
    """An address to connect to, of one to listen on."""
    return LOCAL if _ip(host).is_unspecified else host
