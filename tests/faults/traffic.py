"""Load of the fault tests, by the load generator of ``derma_bench``.

async with wire(url) as send:
    requests = await open_loop(send, [image], rate=100, seconds=5)
with classifying(url, image, threads=16) as requests: ...
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from derma_bench.load.loops import TIMEOUT, Background, Send, background
from derma_semantics import DermaClient
from derma_semantics.wire.transport import GrpcAsyncTransport


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[Send]:
    """Sends images as ``AsyncDermaClient`` does, without a client's work before and after.

    Many clients have many processors for that; here they share one thread, and the service's processors.
    """
    transport = GrpcAsyncTransport(url)
    try:
        yield lambda image: transport.infer(image, TIMEOUT)
    finally:
        await transport.close()


@contextmanager
def classifying(url: str, image: bytes, threads: int) -> Iterator[Background]:
    """Threads that share a client and do not try again."""
    with (
        DermaClient(url, retry_for=0, timeout=TIMEOUT) as client,
        background(*[lambda: client.classify(image)] * threads) as requests,
    ):
        yield requests
