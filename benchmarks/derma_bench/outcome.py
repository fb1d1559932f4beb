"""Store and show what a command measured.

with reported():
    figures, repeats, subject = measure(...)
    finish("service", out, (figures, repeats, subject), smoke=False)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import click

from derma_bench.report import record
from derma_bench.report.table import markdown

# Figures, the raw measurements they come from, and what was measured.
Measured: TypeAlias = tuple[Mapping[str, Any], Sequence[Mapping[str, Any]], Mapping[str, Any]]


def finish(command: str, out: Path, measured: Measured, *, smoke: bool) -> None:
    """Store a run and print its tables."""
    figures, repeats, subject = measured
    made = record.make(command, figures, repeats, smoke=smoke, subject=subject)
    record.write(out, made)
    click.echo(f"{markdown(made)}\nresult in {out}")
