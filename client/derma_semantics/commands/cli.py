"""derma: classify dermoscopic images with a running service.

    derma classify lesion.jpg
    derma classify photos/ --json
    derma bulk photos/ --out results.parquet
    derma explain lesion.jpg --prompt "signs of melanoma" --out overlay.png
    derma evaluate --images photos/ --truth GroundTruth.csv --out report/
    derma status
    derma app
    derma serve                                  # with derma-semantics[serve]

Exit codes: 0 ok, 1 some images failed or lack their report, 2 usage, 3 service unavailable.
Research use. Not a medical device.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import entry_points

import click

from derma_semantics.commands.terminal import help_text
from derma_semantics.wire.logs import VARIABLE, configure

GROUP = "derma.commands"  # of entry points
# The client's own commands, each a function in the module of its name, and what --help says of it.
COMMANDS = {
    "app": "Serve the web app on 127.0.0.1.",
    "bulk": "Classify all images of SOURCE... into one table.",
    "classify": "Rank the seven conditions for each image.",
    "completion": "Print the script that completes `derma` in a shell.",
    "evaluate": "Measure the served model on labelled images.",
    "explain": "Show which pixels of IMAGE speak for a text.",
    "status": "Say what is served, and whether it is ready.",
    "synthetic": "Draw pictures that look like dermoscopy.",
}


class Commands(click.Group):
    """The client's own commands, and those that installed packages add under ``GROUP``.

    Each is imported where it is used: ``--help`` loads neither gRPC nor numpy.
    """

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*COMMANDS, *(found.name for found in entry_points(group=GROUP))})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            own: click.Command = getattr(import_module(f"derma_semantics.commands.{name}"), name)
            return own
        for found in entry_points(group=GROUP, name=name):
            try:
                command: click.Command = found.load()
            except ModuleNotFoundError as exc:
                raise click.UsageError(
                    f"derma {name} needs {exc.name}: pip install 'derma-semantics[serve]'"
                ) from exc
            return command
        return None

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            (name, COMMANDS.get(name) or self._short(context, name)) for name in self.list_commands(context)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _short(self, context: click.Context, name: str) -> str:
        try:
            command = self.get_command(context, name)
        except click.UsageError as exc:
            return exc.message
        return command.get_short_help_str(80) if command else ""


@click.group(cls=Commands, help=help_text(__doc__))
@click.version_option(package_name="derma-semantics")
@click.pass_context
def main(context: click.Context) -> None:
    if os.environ.get("NO_COLOR"):  # https://no-color.org: set, and not empty
        context.color = False
    if os.environ.get(VARIABLE):
        try:
            configure("client")
        except ValueError as exc:
            raise click.UsageError(str(exc)) from exc
