"""derma: classify dermoscopic images with a running service.

    derma classify lesion.jpg
    derma classify photos/ --json
    derma bulk photos/ --out results.parquet
    derma explain lesion.jpg --prompt "signs of melanoma" --out overlay.png
    derma evaluate --images photos/ --truth GroundTruth.csv --out report/
    derma status
    derma app

Exit codes: 0 ok, 1 some images failed, 2 usage, 3 service unavailable.
Research use. Not a medical device.
"""

from __future__ import annotations

import os

import click

from derma_semantics.commands.app import app
from derma_semantics.commands.bulk import bulk
from derma_semantics.commands.classify import classify
from derma_semantics.commands.completion import completion
from derma_semantics.commands.evaluate import evaluate
from derma_semantics.commands.explain import explain
from derma_semantics.commands.status import status
from derma_semantics.logs import VARIABLE, configure
from derma_semantics.terminal import help_text


@click.group(help=help_text(__doc__))
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


for command in (classify, bulk, explain, evaluate, status, app, completion):
    main.add_command(command)
