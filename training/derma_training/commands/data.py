"""derma-train data: a report on data sets."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from derma_training.commands.options import reported


@click.command("data")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option("--seed", default=0, show_default=True, help="Of the split.")
@click.option("--json", "as_json", is_flag=True, help="Print every figure and name as JSON.")
def report_data(sources: tuple[str, ...], seed: int, as_json: bool) -> None:
    """Count a data set's conditions, duplicates and overlaps, and show its split by lesion.

    SOURCE is a folder (ISIC 2017, 2018 or 2019, HAM10000, hub parquet files, or one folder a class)
    or a name on the Hugging Face hub, such as marmal88/skin_cancer. Several become one table.
    """
    from derma_training.data.report import report, summary

    with reported():
        found = report(*sources, seed=seed)
        click.echo(json.dumps(asdict(found), indent=2) if as_json else summary(found))
