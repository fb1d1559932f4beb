"""How a command ends: with a result that is stored and shown, or with one clear sentence.

with reported():
    figures, repeats, subject = measure(...)
    finish("service", out, (figures, repeats, subject), smoke=False)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import click

from derma_bench.report import record
from derma_bench.report.table import markdown
from derma_semantics.errors import DermaError

# Figures, the raw measurements they come from, and what was measured.
Measured: TypeAlias = tuple[Mapping[str, Any], Sequence[Mapping[str, Any]], Mapping[str, Any]]


def finish(command: str, out: Path, measured: Measured, *, smoke: bool) -> None:
    """Store a run and print its tables."""
    figures, repeats, subject = measured
    made = record.make(command, figures, repeats, smoke=smoke, subject=subject)
    record.write(out, made)
    click.echo(f"{markdown(made)}\nresult in {out}")


@contextmanager
def reported() -> Iterator[None]:
    """Expected failures as one sentence and exit code 1."""
    from derma_bench.servers.processes import ServiceFailed
    from derma_export.engine import EngineUnavailable

    try:
        yield
    except (EngineUnavailable, ServiceFailed, DermaError, ValueError, OSError, ImportError) as exc:
        raise click.ClickException(str(exc)) from exc
    except BrokenExecutor as exc:
        raise click.ClickException(
            f"a process that sends images died, perhaps for want of memory: try fewer --processes ({exc})"
        ) from exc
