"""``derma bulk``: very many images into one table."""

from __future__ import annotations

import json
import sys
import time
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import click

from derma_semantics.bulk import Tally, check_table, images, run_bulk
from derma_semantics.bulk.failures import Skipped
from derma_semantics.bulk.lists import Readable
from derma_semantics.bulk.run import errors_of, journal_of, skipped_of
from derma_semantics.bulk.sources import LIST
from derma_semantics.commands.options import JSON, NEW_FILE, REPORTS, Service, connected
from derma_semantics.commands.printing import Refused, progress, unavailable
from derma_semantics.commands.terminal import Exit, escaped
from derma_semantics.domain.contract import MAX_BATCH, NOTICE
from derma_semantics.domain.errors import DermaError

SUFFIXES = 5  # that a summary for people names


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--out", type=NEW_FILE, required=True, help="Table to write: .parquet, .csv or .jsonl.")
@click.option(
    "--recursive/--no-recursive", default=True, show_default=True, help="Look into folders of folders."
)
@click.option("--embeddings", is_flag=True, help="Add the embedding of each image (.parquet, .jsonl).")
@REPORTS
@click.option("--overwrite", is_flag=True, help="Replace --out where an earlier run has finished it.")
@click.option(
    "--in-flight",
    type=click.IntRange(1, 256),
    default=MAX_BATCH,
    show_default=True,
    help="Images under way at a time.",
)
@connected
@JSON
def bulk(
    service: Service,
    sources: tuple[str, ...],
    out: Path,
    recursive: bool,
    embeddings: bool,
    reports: Path | None,
    overwrite: bool,
    in_flight: int,
    as_json: bool,
) -> None:
    """Classify all images of SOURCE... into one table.

    SOURCE is a file, a folder, a quoted glob, or - for a list on stdin: a name a line, or
    each ended by NUL (find -print0), in UTF-16 too. Linked folders are followed. Files of
    folders that are no images are counted, and listed in OUT's .skipped.csv. Each image is
    asked once. However the command ends early, by Ctrl-C, a kill or a service that
    goes away, the same command goes on from there: answers are kept in OUT.journal until OUT
    is complete. Images that fail are listed in OUT's .errors.csv, and asked again when the
    command goes on. An answer whose report (--sr) cannot be written is kept; .errors.csv
    says why. In CSV, names that a spreadsheet would take for formulas begin with '.

    Exit codes: 0 all answered, 1 complete but some images failed or lack their report,
    2 cannot be done as given, 3 service unavailable, 130 interrupted.
    """
    began = time.monotonic()
    tally, skipped = Tally(), Skipped(skipped_of(out))
    code = Exit.OK
    try:
        _check(out, embeddings, overwrite)
        total = None if LIST in sources else sum(1 for _ in images(sources, recursive=recursive))
        names = images(sources, recursive=recursive, listed=_stdin(), skipped=skipped.add)
        with service.client() as client, progress(total, quiet=as_json) as bar:
            run_bulk(
                client,
                names,
                out,
                tally,
                embeddings=embeddings,
                reports=reports,
                skipped=skipped,
                in_flight=in_flight,
                progress=bar.update,
            )
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except DermaError as exc:
        code, error = Exit.UNAVAILABLE, exc
    except (ValueError, OSError, ImportError) as exc:
        raise Refused(str(exc)) from exc
    summary = _summary(tally, skipped, out, time.monotonic() - began)
    click.echo(json.dumps(summary) if as_json else _readable(summary))
    if code:
        click.echo("Stopped: the same command goes on from there.", err=True)
    if code is Exit.UNAVAILABLE:
        unavailable(error)
    sys.exit(code or (Exit.FAILED if tally.failed or tally.unreported else Exit.OK))


def _stdin() -> Readable:
    return cast(BufferedReader, sys.stdin.buffer)


def _check(out: Path, embeddings: bool, overwrite: bool) -> None:
    check_table(out, embeddings=embeddings)
    if out.exists() and not overwrite and not journal_of(out).exists():
        raise FileExistsError(f"{out} is complete already: give another --out, or --overwrite")


def _summary(tally: Tally, skipped: Skipped, out: Path, seconds: float) -> dict[str, Any]:
    return {
        "out": str(out),
        "complete": tally.complete,
        "images": tally.resumed + tally.answered,
        "answered": tally.answered,
        "resumed": tally.resumed,
        "elsewhere": tally.elsewhere if tally.complete else None,
        "failed": tally.failed,
        "unreported": tally.unreported,
        "errors": str(errors_of(out)) if tally.failed or tally.unreported else None,
        "skipped": dict(skipped.suffixes.most_common()),
        "skipped_list": str(skipped.path) if skipped.suffixes else None,
        "seconds": round(seconds, 3),
        "images_per_second": round((tally.answered + tally.failed) / seconds, 2),
        "bundle": tally.bundle.name if tally.bundle else None,
        "bundle_digest": tally.bundle.digest if tally.bundle else None,
    }


def _readable(summary: dict[str, Any]) -> str:
    where = escaped(summary["out"] if summary["complete"] else f"{summary['out']}.journal")
    errors = escaped(summary["errors"] or "")
    lines = [
        f"{summary['images']:,} images in {where}: {summary['answered']:,} answered now, "
        f"{summary['resumed']:,} before; {summary['seconds']:.1f} s, "
        f"{summary['images_per_second']:.1f} images/s"
    ]
    if summary["failed"]:
        lines.append(click.style(f"{summary['failed']:,} failed: see {errors}", fg="red"))
    if summary["unreported"]:
        text = f"{summary['unreported']:,} answered, but without their report: see {errors}"
        lines.append(click.style(text, fg="red"))
    if summary["skipped"]:
        lines.append(_skipped(summary["skipped"], summary["skipped_list"]))
    if summary["elsewhere"]:
        lines.append(f"{summary['elsewhere']:,} answered before are not among the sources: kept")
    return "\n".join([*lines, NOTICE])


def _skipped(suffixes: dict[str, int], path: str) -> str:
    """For a person: the most frequent suffixes, the most frequent first."""
    shown = [f"{count:,} {escaped(suffix) or 'without suffix'}" for suffix, count in suffixes.items()]
    kinds = ", ".join([*shown[:SUFFIXES], *(["..."] if shown[SUFFIXES:] else [])])
    return f"{sum(suffixes.values()):,} files are no images ({kinds}): see {escaped(path)}"
