"""Report an expected failure as one sentence.

with reported():
    measure(...)
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager

import click

from derma_semantics.domain.errors import DermaError


@contextmanager
def reported() -> Iterator[None]:
    """Expected failures as one sentence and exit code 1."""
    from derma_bench.servers.processes import ServiceFailed
    from derma_serving.runtime.engine import EngineUnavailable

    try:
        yield
    except (EngineUnavailable, ServiceFailed, DermaError, ValueError, OSError, ImportError) as exc:
        raise click.ClickException(str(exc)) from exc
    except BrokenExecutor as exc:
        raise click.ClickException(
            f"a process that sends images died, perhaps for want of memory: try fewer --processes ({exc})"
        ) from exc
