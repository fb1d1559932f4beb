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
from importlib.metadata import entry_points

import click

from derma_semantics.commands.app import app
from derma_semantics.commands.bulk import bulk
from derma_semantics.commands.classify import classify
from derma_semantics.commands.completion import completion
from derma_semantics.commands.evaluate import evaluate
from derma_semantics.commands.explain import explain
from derma_semantics.commands.status import status
from derma_semantics.commands.synthetic import synthetic
from derma_semantics.commands.terminal import help_text
from derma_semantics.wire.logs import VARIABLE, configure

GROUP = "derma.commands"  # of entry points


class Commands(click.Group):
    """The client's own commands, and those that installed packages add under ``GROUP``."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [*super().list_commands(context), *(found.name for found in entry_points(group=GROUP))]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if own := super().get_command(context, name):
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


for command in (classify, bulk, explain, evaluate, status, app, synthetic, completion):
    main.add_command(command)
