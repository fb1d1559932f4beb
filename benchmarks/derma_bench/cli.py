"""derma-bench: measure the service and its parts.

    derma-bench engine   --help                          # the bare engine against the processor's limit
    derma-bench decode   --help                          # JPEG to pixels
    derma-bench service  --bundle training/bundles/derma-mini --against baseline
    derma-bench saturate --p99 100                       # the highest arrival rate
    derma-bench bulk     --images PHOTOGRAPHS            # derma bulk beside the service's highest rate
    derma-bench report   .run/bench/*.json --out .run/bench/report

Every run is one JSON file with the machine, the versions, the weights' digest, the command
and every raw figure; `report` makes tables and plots of such files. `--smoke` runs a command
in seconds to see that it works; its figures mean nothing, and the result says so.
A profile of the repository, such as cuda, is chosen as for the service: DERMA_PROFILE=cuda.
For load by hand, with a web page or from several machines: benchmarks/locustfile.py.
"""

from __future__ import annotations

import signal
from pathlib import Path

import click

from derma_bench.commands import parts, services
from derma_bench.commands.options import FILE, session
from derma_semantics.commands.terminal import help_text, require_extra


@click.group(help=help_text(__doc__))
def main() -> None:
    # Ended early, what was started must still be ended: SIGTERM unwinds as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    require_extra("bench", "onnxruntime", "torch", "matplotlib")


for command in (services.bulk, parts.decode, parts.engine, services.saturate, services.service):
    main.add_command(command)


@main.command(short_help="Tables and plots of stored runs.")
@click.argument("runs", nargs=-1, required=True, type=FILE, metavar="RUN.json...")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write."
)
def report(runs: tuple[Path, ...], out: Path) -> None:
    """Write table.md and plots (PNG) of stored runs."""
    from derma_bench.report.plots import write_report

    with session():
        for path in write_report(runs, out):
            click.echo(path)


if __name__ == "__main__":
    main()
