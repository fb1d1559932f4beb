"""``derma evaluate``: the served model against labels."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from derma_semantics.commands.options import FILE, FOLDER, JSON, NEW_FOLDER, Service, connected
from derma_semantics.commands.printing import Refused, progress, unavailable
from derma_semantics.commands.terminal import Exit, escaped
from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.errors import DermaError
from derma_semantics.domain.formats import CLIENT_SUFFIXES


@click.command()
@click.option(
    "--images", type=FOLDER, required=True, help=f"Folder of images ({', '.join(CLIENT_SUFFIXES)})."
)
@click.option("--truth", type=FILE, required=True, help=f"CSV: image,{','.join(CODES)}; one 1.0 a row.")
@click.option("--out", type=NEW_FOLDER, required=True, help="Folder to write.")
@click.option("--metadata", type=FILE, help="CSV with lesion, age, sex or site of each image.")
@connected
@JSON
def evaluate(
    service: Service, images: Path, truth: Path, out: Path, metadata: Path | None, as_json: bool
) -> None:
    """Measure the served model on labelled images, with the official ISIC scorer as well.

    Called again with the same --out, it asks only for the answers that are missing. Images
    that the service refuses count as wrong and are listed in errors.csv; the exit code is
    then 1.
    """
    try:
        from derma_semantics.evaluation.run import evaluate_service
        from derma_semantics.evaluation.summary import summary
        from derma_semantics.evaluation.truth import read_truth
    except ImportError as exc:
        raise Refused(str(exc)) from exc
    try:
        cases = read_truth(truth, images, metadata)
        with service.client() as client, progress(len(cases), quiet=as_json) as bar:
            report = evaluate_service(client, cases, out, truth, progress=bar.update)
    except DermaError as exc:
        click.echo(
            f"What was answered is kept in {escaped(out)}: the same command goes on from there.", err=True
        )
        unavailable(exc)
    except (ValueError, OSError) as exc:
        raise Refused(str(exc)) from exc
    click.echo(json.dumps(report) if as_json else f"{summary(report)}\nreport in {escaped(out)}")
    sys.exit(Exit.FAILED if report["unanswered"] else Exit.OK)
