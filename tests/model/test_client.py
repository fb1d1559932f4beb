"""Clients where nobody listens."""

import asyncio

import pytest

from derma_semantics import AsyncDermaClient, DermaClient
from derma_semantics.domain.errors import ServiceUnavailable


def test_no_server_is_a_clear_error():
    client = DermaClient("127.0.0.1:1", retry_for=0)
    assert not client.ready(timeout=1)
    with pytest.raises(ServiceUnavailable, match="127.0.0.1:1"):
        client.classify(b"x")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_no_sidecar_is_a_clear_error(kind):
    url = {"saliency_url": "http://127.0.0.1:1", "retry_for": 0}
    with pytest.raises(ServiceUnavailable, match="127.0.0.1:1"):
        if kind == "sync":
            DermaClient(**url).explain(b"x", "a")
        else:
            asyncio.run(AsyncDermaClient(**url).explain(b"x", "a"))
