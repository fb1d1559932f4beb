"""derma-bench: measure the service and what it is made of.

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

import importlib
import signal

import click

from derma_semantics.commands.terminal import help_text

# Each has a package of its own.
COMMANDS = ("bulk", "decode", "engine", "report", "saturate", "service")


class Commands(click.Group):
    """Loads a command's module when it is asked for, so that the others need not what it needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"derma_bench.{cmd_name}.command"), cmd_name)
        return command


@click.group(cls=Commands, help=help_text(__doc__))
def main() -> None:
    # Ended early, what was started must still be ended: SIGTERM unwinds as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


if __name__ == "__main__":
    main()
