"""``derma-bench bulk``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from derma_bench import options
from derma_bench.failures import reported
from derma_bench.outcome import finish
from derma_bench.payloads import described, payloads


@click.command()
@click.option("--images", type=options.FOLDER, required=True, help="Folder of JPEG files.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=20.0,
    show_default=True,
    help="That the service's highest rate is measured before each run.",
)
@click.option("--kills", type=click.IntRange(min=0), default=2, show_default=True, help="Of the last run.")
@options.out("bulk")
@options.smoke("One short turn, to see that it works.")
@click.option("--url", metavar="HOST:PORT", help="Measure the running service at this gRPC address.")
@click.option(
    "--repository",
    type=options.FOLDER,
    help="Model repository to start the service with.  [default: .run/models]",
)
def bulk(
    images: Path,
    repeats: int,
    seconds: float,
    kills: int,
    out: Path,
    smoke: bool,
    url: str | None,
    repository: Path | None,
) -> None:
    """Images a second of `derma bulk` over a folder, beside the service's highest rate.

    The service is first kept as busy as `derma bulk` keeps it, with the same images from memory,
    then the command reads the folder, asks, and writes its table; by turns. A last run is ended by
    SIGKILL as often as --kills says, and must go on until every image has one row.
    """
    from derma_bench.bulk.measure import Request, measure
    from derma_bench.servers.ours import REPOSITORY

    with reported(), tempfile.TemporaryDirectory(prefix="derma-bench-") as state:
        if smoke:
            repeats, seconds, kills = 1, 0.5, 1
        request = Request(images, repeats, seconds, kills, repository or REPOSITORY, url)
        figures, turns, subject = measure(request, Path(state))
        subject |= {"payloads": described(images, payloads(images))}
        finish("bulk", out, (figures, turns, subject), smoke=smoke)
