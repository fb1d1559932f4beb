"""``derma-bench report``: tables and plots of stored runs."""

from __future__ import annotations

from pathlib import Path

import click

from derma_bench.failures import reported
from derma_bench.options import FILE


@click.command()
@click.argument("runs", nargs=-1, required=True, type=FILE, metavar="RUN.json...")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write."
)
def report(runs: tuple[Path, ...], out: Path) -> None:
    """Write table.md and plots (PNG) of stored runs."""
    from derma_bench.report.write import write_report

    with reported():
        for path in write_report(runs, out):
            click.echo(path)
