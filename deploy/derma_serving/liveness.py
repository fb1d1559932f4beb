"""Liveness probe of Triton: it kills one that takes connections and answers none.

    LivenessProbe(server, stopping).start()

Triton 2.51 that crashes may lock itself up in its own signal handler, and then neither serves nor ends. This
ends it, and whoever looks after dead processes starts another.
"""

from __future__ import annotations

import logging
import threading
from http.client import HTTPConnection, HTTPException

from derma_serving.server import TritonServer

INTERVAL = 0.5
TIMEOUT = 5.0  # seconds; a Triton that loads, or has more to do than it can, answers in a few milliseconds

logger = logging.getLogger("derma.liveness")


class LivenessProbe(threading.Thread):
    """Probes until ``stopping`` is set.

    Over HTTP, as gRPC's answers of this kind wait while a model is loaded.
    """

    def __init__(self, server: TritonServer, stopping: threading.Event) -> None:
        super().__init__(name="liveness", daemon=True)
        self.server = server
        self.stopping = stopping

    def run(self) -> None:
        settings = self.server.settings
        while not self.stopping.wait(INTERVAL):
            process = self.server.process
            if process is None or not hangs(settings.local_host, settings.http_port):
                continue
            if not self.stopping.is_set():  # a drain has a deadline of its own
                logger.error("Triton has not answered for %.0f s; ending it", TIMEOUT)
                process.kill()


def hangs(host: str, port: int, timeout: float = TIMEOUT) -> bool:
    """Return True if something listens there and does not answer within ``timeout`` seconds.

    Where nothing listens, or the connection breaks, something starts or ends.
    """
    connection = HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", "/v2/health/live")
        connection.getresponse().read()
    except TimeoutError:
        return True
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return False
