"""``derma classify``: a few images, answers for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from derma_semantics.bulk.reports import unreported
from derma_semantics.commands.options import JSON, REPORTS, Service, connected
from derma_semantics.commands.printing import readable, record, say_failure, unavailable
from derma_semantics.commands.terminal import Exit, escaped
from derma_semantics.domain.contract import NOTICE
from derma_semantics.domain.diagnosis import Diagnosis
from derma_semantics.domain.errors import AccessDenied, Overloaded, ServiceUnavailable
from derma_semantics.domain.formats import CLIENT_SUFFIXES
from derma_semantics.imaging.folders import images_in


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@REPORTS
@connected
@JSON
def classify(service: Service, images: tuple[Path, ...], reports: Path | None, as_json: bool) -> None:
    """Rank the seven conditions for each image.

    A folder stands for the images in it. For thousands of images, see `derma bulk`.

    An answer whose report (--sr) cannot be written is printed all the same, and the exit
    code is 1, as where an image failed.
    """
    paths = _expand(images)
    failed = 0
    with service.client() as client:
        for path, answer in client.classify_many(paths):
            if isinstance(answer, (ServiceUnavailable, AccessDenied)) and not isinstance(answer, Overloaded):
                unavailable(answer)
            if not isinstance(answer, Diagnosis):
                failed += 1
                say_failure(path, answer, as_json)
                continue
            lacking = unreported(path, answer, reports) if reports else None
            failed += lacking is not None
            if as_json:
                click.echo(json.dumps(record(path, answer) | ({"report": str(lacking)} if lacking else {})))
            else:
                click.echo(readable(path, answer))
                if lacking:
                    say_failure(path, lacking, as_json)
    if not as_json:
        click.echo(NOTICE)
    sys.exit(Exit.FAILED if failed else Exit.OK)


def _expand(given: Iterable[Path]) -> list[Path]:
    """Files as they are, folders as the images in them.

    Raises:
        click.UsageError: a folder holds no image.
    """
    paths: list[Path] = []
    for path in given:
        if not path.is_dir():
            paths.append(path)
            continue
        try:
            paths += images_in(path, CLIENT_SUFFIXES, least=1)
        except ValueError as exc:
            raise click.UsageError(escaped(str(exc))) from exc
    return paths
