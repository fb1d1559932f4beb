"""A gRPC channel that survives a fork, and asyncio's change of loops.

    channel = Channel(Connection("127.0.0.1:8001"), grpc)
    channel.stub.ServerLive(request, timeout=1.0, metadata=channel.metadata)

A forked process cannot use the connections of its parent, so it opens its own. gRPC allows this where no
call is under way at the moment of the fork; for asyncio, only where none was made before.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from derma_semantics.wire import tracing
from derma_semantics.wire.connection import Connection
from derma_semantics.wire.protocol import Stub

_LOCK = threading.Lock()
# A fork while another thread holds the lock would leave it locked forever.
os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


class Channel:
    """Opened by its first use.

    Args:
        module: ``grpc`` or ``grpc.aio``.
        loop: tells which event loop uses it.
    """

    def __init__(
        self, connection: Connection, module: Any, loop: Callable[[], object] = lambda: None
    ) -> None:
        self.connection = connection
        self._module, self._loop = module, loop
        self._open: Any = None
        self._stub: Any = None
        self._place: tuple[int, object] | None = None
        self._inherited: list[Any] = []
        self._closed = False

    def __str__(self) -> str:
        return str(self.connection)

    @property
    def stub(self) -> Any:
        """The service's methods.

        Raises:
            RuntimeError: it was closed.
        """
        place = (os.getpid(), self._loop())
        with _LOCK:
            if self._closed:
                raise RuntimeError(f"the client of {self} is closed")
            if self._place != place:
                self._leave()
                self._open = self.connection.open(self._module)
                self._stub = Stub(self._open)
                self._place = place
            return self._stub

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of every call: the token, and the trace it belongs to."""
        return (*self.connection.metadata, *tracing.headers().items())

    def release(self) -> Any:
        """End its use; returns what the caller has to close, None where nothing is open here."""
        with _LOCK:
            self._closed = True
            ours = self._place is not None and self._place[0] == os.getpid()
            return self._open if ours else None

    def _leave(self) -> None:
        """Let go of another process's connections without closing them: it goes on using them."""
        if self._place is None or self._place[0] == os.getpid():
            return
        if self._place[1] is not None:
            raise RuntimeError(
                "an AsyncDermaClient that was used before this process was forked cannot be used in it, "
                "nor can any other, as gRPC for asyncio does not survive a fork: "
                "start processes by spawn, or use DermaClient"
            )
        self._inherited.append(self._open)
