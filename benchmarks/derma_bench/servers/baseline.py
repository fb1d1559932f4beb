"""The baseline as a process: see ``baseline_app.py`` for what it serves.

with baseline(Path("training/bundles/derma-mini"), state) as running:
    async with running.connect() as send: ...
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from derma_bench.load.senders import http
from derma_bench.servers.processes import HOST, Running, free_ports, healthy, process


@contextmanager
def baseline(bundle: Path, state: Path) -> Iterator[Running]:
    """PyTorch behind FastAPI, on a port found free.

    Args:
        state: folder for its log.

    Raises:
        ServiceFailed: it did not get ready.
    """
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "derma_bench.servers.baseline_app", str(bundle), f"--port={port}"]
    address = f"http://{HOST}:{port}"
    with process(command, state / "baseline.log", partial(healthy, f"{address}/health")) as pid:
        yield Running("baseline", partial(http, f"{address}/classify"), pid=pid)
