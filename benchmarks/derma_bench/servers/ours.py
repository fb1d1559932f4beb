"""Our service: one that runs already, or one that is started.

    with triton(Path(".run/models"), state) as running:
        async with running.connect() as send: ...

What is started listens on 127.0.0.1, on ports found free, and ends with its block.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from derma_bench.load.senders import derma
from derma_bench.servers.processes import HOST, Running, ServiceFailed, free_ports, process
from derma_semantics import DermaClient
from derma_semantics.domain.contract import NETWORK
from derma_semantics.wire.transport import GrpcTransport, ModelControl
from derma_serving.settings import Settings

OURS = "derma"
REPOSITORY = Settings.repository


def ours(url: str | None, repository: Path, state: Path) -> AbstractContextManager[Running]:
    """Our service: the one at ``url``, or one that is started."""
    return remote(url) if url else triton(repository, state)


@contextmanager
def triton(
    repository: Path, state: Path, name: str = OURS, ports: Sequence[int] = (), *, audit: bool = False
) -> Iterator[Running]:
    """Our service, as ``make serve`` starts it.

    Args:
        state: folder for its logs.
        name: of this configuration, where there are several.
        ports: HTTP, gRPC, metrics; free ones by default.
        audit: whether it keeps an audit log, in ``state``.

    Raises:
        ServiceFailed: it did not get ready.
    """
    web, rpc, metrics = ports or free_ports(3)
    url = f"{HOST}:{rpc}"
    options = {"http-port": web, "grpc-port": rpc, "metrics-port": metrics}
    folders = [f"--repository={repository.resolve()}", f"--state={state.resolve()}"]
    numbers = [f"--{option}={port}" for option, port in options.items()]
    audited = [f"--audit-log={state.resolve() / 'audit.jsonl'}"] if audit else []
    command = [sys.executable, "-m", "derma_serving", "serve", *folders, *numbers, *audited]
    log = state / "launcher.log"
    # The service takes it from here, and so does what reads its statistics.
    os.environ.setdefault("DERMA_ADMIN_KEY", secrets.token_urlsafe(32))
    with DermaClient(url) as client, process(command, log, client.ready, name=name) as pid:
        yield Running(name, partial(derma, url), url, pid)


@contextmanager
def remote(url: str) -> Iterator[Running]:
    """Our service where it already runs.

    Raises:
        ServiceFailed: it does not answer.
    """
    with DermaClient(url) as client:
        if not client.ready():
            raise ServiceFailed(f"{url} is not ready")
    yield Running(OURS, partial(derma, url), url)


def served(url: str, *, timeout: float = 10.0) -> dict[str, Any]:
    """Describe our service for a result: weights, digest, precision, every parameter, the server."""
    transport, control = GrpcTransport(url), ModelControl(url, timeout=timeout)
    try:
        server = control.server()
        accelerators = _accelerators(configuration(url, timeout=timeout))
        name = f"{server['name']} {server['version']}"
        return {**transport.network(timeout), "accelerators": accelerators, "server": name}
    finally:
        transport.close()
        control.close()


def configuration(url: str, *, timeout: float = 10.0) -> dict[str, Any]:
    """The network's configuration, as the server completed it."""
    control = ModelControl(url, timeout=timeout)
    try:
        return control.configuration(NETWORK.name)
    finally:
        control.close()


def _accelerators(config: Mapping[str, Any]) -> list[str]:
    """Names of the providers that the configuration asks for; none means ONNX Runtime's own."""
    kinds = config.get("optimization", {}).get("execution_accelerators", {})
    return [str(entry["name"]) for entries in kinds.values() for entry in entries]
