"""Nothing that serves, exports or trains may ask the network: a test that reaches beyond this machine fails.

Also where a library swallows the error. What gRPC's own sockets do is not seen here: see test_proxies.py.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from ipaddress import ip_address
from typing import Any

import pytest

import derma_training  # noqa: F401  # settles how the hub's library behaves, before a test imports that

asked: list[str] = []


def _local(host: str) -> bool:
    if host in {"", "localhost"} or host.endswith(".invalid"):  # RFC 2606: never resolved
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        host = arguments[1][0] if isinstance(arguments[1], tuple) else ""
    elif event == "socket.getaddrinfo":
        host = arguments[0] or ""
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if not _local(host):
        asked.append(host)
        raise ConnectionRefusedError(f"a test asked the network for {host}")


sys.addaudithook(_audit)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    asked.clear()
    result = yield
    if asked:
        pytest.fail(f"asked the network for {', '.join(asked)}")
    return result
