"""Connection settings of the service: addresses, TLS, token.

    Connection("10.0.0.1:8001,10.0.0.2:8001", TLS(ca="clinic.pem", name="triton.clinic"), "secret")

Several addresses, and all addresses of a DNS name, take turns; those that do not answer are passed over.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from derma_semantics.domain.errors import ServiceUnavailable
from derma_semantics.domain.regular import open_regular, read_regular

Address: TypeAlias = str | Sequence[str]
PemFile: TypeAlias = str | os.PathLike[str]

# A server that restarts is found again within the time that retries take.
PROXY = "DERMA_PROXY"
_OPTIONS = (
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Without it a forked process would share, and break, the connections of its parent.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True)
class TLS:
    """TLS material, as paths of PEM files.

    Args:
        ca: the certificates to trust; default: the system's (``SSL_CERT_FILE``), or those that
            gRPC brings along where the system has none.
        certificate: the client's own certificate chain, for mutual TLS.
        key: its private key.
        name: the name in the server's certificate, where it is not the host of the address.

    Raises:
        ValueError: only one of ``certificate`` and ``key``, or files that do not fit.
        OSError: a file cannot be read.
    """

    ca: PemFile | None = None
    certificate: PemFile | None = None
    key: PemFile | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("mutual TLS needs both, certificate and key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for path in (self.ca, self.certificate, self.key):
            if path is not None:
                open_regular(path).close()  # an error of the next lines would not name the file
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except ssl.SSLError as exc:
            raise ValueError(f"{self} cannot be used: {exc}") from exc

    def credentials(self) -> Any:
        """Credentials of a gRPC channel."""
        import grpc  # type: ignore[import-untyped]

        return grpc.ssl_channel_credentials(
            *(None if path is None else read_regular(path) for path in self._files())
        )

    def for_http(self) -> dict[str, Any]:
        """Arguments of urllib3's pool."""
        files = {"ca_certs": self.ca, "cert_file": self.certificate, "key_file": self.key}
        names = {"assert_hostname": self.name, "server_hostname": self.name}
        return {key: str(value) for key, value in (files | names).items() if value is not None}

    def _files(self) -> tuple[PemFile | None, PemFile | None, PemFile | None]:
        return self.ca or _system_roots(), self.key, self.certificate


def tls_from_environment() -> TLS | None:
    """Read DERMA_CA, DERMA_CERT, DERMA_KEY and DERMA_TLS_NAME; None where none is set.

    Raises:
        ValueError, OSError: see ``TLS``.
    """
    names = {"ca": "DERMA_CA", "certificate": "DERMA_CERT", "key": "DERMA_KEY", "name": "DERMA_TLS_NAME"}
    given = {field: os.environ.get(variable) or None for field, variable in names.items()}
    return TLS(**given) if any(given.values()) else None


class Host(NamedTuple):
    """One address, taken apart."""

    name: str
    port: int

    @property
    def literal(self) -> bool:
        try:
            ip_address(self.name)
        except ValueError:
            return False
        return True

    @property
    def local(self) -> bool:
        """True where nothing that is sent there leaves this machine."""
        return self.name == "localhost" or (self.literal and ip_address(self.name).is_loopback)

    @property
    def private(self) -> bool:
        """Return True for this machine, and for an address of a private network (RFC 1918, RFC 4193)."""
        return self.local or (self.literal and ip_address(self.name).is_private)

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class Connection:
    """Opens channels to one service.

    Args:
        url: ``host:port``; or several, as a list or separated by commas.
        tls: encrypt; default: plaintext.
        token: sent with every call as ``authorization: Bearer ...``.

    Raises:
        ValueError: an address that is none; a token that would travel in plaintext.
    """

    def __init__(self, url: Address, tls: TLS | None = None, token: str | None = None) -> None:
        self.hosts = _hosts(url)
        self.tls = tls
        if token is not None:
            check_token(token, self.hosts, encrypted=tls is not None)
        self.metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self._name = self._certified_name()

    def __str__(self) -> str:
        return ",".join(map(str, self.hosts))

    @property
    def private(self) -> bool:
        """True where nobody else can read the traffic."""
        return self.tls is not None or all(host.local for host in self.hosts)

    @property
    def proxied(self) -> bool:
        """Return True if the proxy of ``https_proxy`` may be used: only with ``DERMA_PROXY=1``.

        Photographs and tokens for this machine or a private address never go through one.
        """
        return os.environ.get(PROXY) == "1" and not any(host.private for host in self.hosts)

    def open(self, module: Any) -> Any:
        """A new channel of ``grpc`` or ``grpc.aio``."""
        options = [*_OPTIONS, ("grpc.enable_http_proxy", int(self.proxied))]
        if self._name:
            options.append(("grpc.default_authority", self._name))
        if self.tls is None:
            return module.insecure_channel(self.target(), options)
        return module.secure_channel(self.target(), self.tls.credentials(), options)

    def target(self) -> str:
        """The addresses as gRPC writes them.

        A single name is left to gRPC, which looks it up anew when connections break. Names in a list
        are looked up here, once a channel, as gRPC cannot.
        """
        if len(self.hosts) == 1 and not self.hosts[0].literal:
            return f"dns:///{self.hosts[0]}"
        found = [host for given in self.hosts for host in _looked_up(given)]
        scheme = "ipv6" if all(":" in host.name for host in found) else "ipv4"
        fitting = [host for host in found if (":" in host.name) == (scheme == "ipv6")]
        return f"{scheme}:{','.join(map(str, dict.fromkeys(fitting)))}"

    def _certified_name(self) -> str | None:
        """The name that the certificate must have, where gRPC cannot derive it from the target."""
        if self.tls is None or self.tls.name is not None:
            return self.tls.name if self.tls else None
        names = {host.name for host in self.hosts}
        if len(names) > 1:
            raise ValueError(
                f"TLS to several hosts ({self}) needs the name in their certificates: TLS(name=...)"
            )
        return names.pop() if len(self.hosts) > 1 else None


def check_token(token: str, hosts: Sequence[Host], *, encrypted: bool) -> None:
    """Refuse a token that is none, or that others could read on its way.

    Raises:
        ValueError: it says why, without the token.
    """
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the token must be printable ASCII without spaces, and not empty")
    if not encrypted and (far := [str(host) for host in hosts if not host.local]):
        raise ValueError(f"a token would travel to {', '.join(far)} in plaintext: use TLS")


def _hosts(url: Address) -> tuple[Host, ...]:
    given = url.split(",") if isinstance(url, str) else list(url)
    hosts = tuple(_host(address.strip()) for address in given if address.strip())
    if not hosts:
        raise ValueError("url holds no address; expected host:port, such as 127.0.0.1:8001")
    return hosts


def _host(address: str) -> Host:
    try:
        parts = urlsplit(f"//{address}")
        if parts.hostname and parts.port and parts.netloc == address:
            return Host(parts.hostname, parts.port)
    except ValueError:
        pass
    raise ValueError(f"expected host:port, such as 127.0.0.1:8001, got {address!r}")


def _looked_up(host: Host) -> list[Host]:
    if host.literal:
        return [host]
    try:
        found = socket.getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise ServiceUnavailable(f"{host} is not available: {exc}") from exc
    return [Host(str(entry[4][0]), host.port) for entry in found]


def _system_roots() -> str | None:
    paths = ssl.get_default_verify_paths()
    bundles = (paths.cafile, paths.capath and f"{paths.capath}/ca-certificates.crt")
    return next((path for path in bundles if path and Path(path).is_file()), None)


def _no_password() -> str:
    raise ValueError("the private key is encrypted: gRPC takes only plain ones")
