"""derma: classify dermoscopic images with a running service.

    derma classify lesion.jpg
    derma classify photos/ --json
    derma evaluate --images photos/ --truth GroundTruth.csv --out report/
    derma status

Exit codes: 0 ok, 1 some images failed, 2 usage, 3 service unavailable.
Research use. Not a medical device.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from derma_semantics.client import DEFAULT_TIMEOUT, DEFAULT_URL, IN_FLIGHT, DermaClient
from derma_semantics.contract import CLASSIFIER, IMAGE_SUFFIXES, RANDOM_WEIGHTS, SET_COVERAGE, Triage
from derma_semantics.diagnosis import Diagnosis
from derma_semantics.errors import DermaError, Overloaded, ServiceUnavailable
from derma_semantics.terminal import help_text
from derma_semantics.transport import ModelControl

BAR = 30
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

URL = click.option(
    "--url",
    default=DEFAULT_URL,
    envvar="DERMA_URL",
    show_default=True,
    help="gRPC address.  [env: DERMA_URL]",
)
TIMEOUT = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT_TIMEOUT,
    show_default=True,
    help="Seconds an image.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")


@click.group(help=help_text(__doc__))
@click.version_option(package_name="derma-semantics")
def main() -> None:
    pass


@main.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@URL
@TIMEOUT
@JSON
def classify(images: tuple[Path, ...], url: str, timeout: float, as_json: bool) -> None:
    """Rank the seven conditions for each image.

    A folder stands for the images in it.
    """
    paths = _expand(images)
    failed = 0
    with DermaClient(url, timeout=timeout) as client:
        for path, answer in _answers(client, paths):
            failed += isinstance(answer, Exception)
            if as_json:
                click.echo(json.dumps(_record(path, answer)))
            else:
                click.echo(_readable(path, answer), err=isinstance(answer, Exception))
    if not as_json:
        click.echo("Research use. Not a medical device.")
    sys.exit(1 if failed else 0)


@main.command()
@click.option("--images", type=FOLDER, required=True, help="Folder of <image>.jpg, .jpeg or .png.")
@click.option(
    "--truth", type=FILE, required=True, help="CSV: image,MEL,NV,BCC,AKIEC,BKL,DF,VASC; one 1.0 a row."
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write."
)
@click.option("--metadata", type=FILE, help="CSV with lesion, age, sex or site of each image.")
@URL
@TIMEOUT
@JSON
def evaluate(
    images: Path, truth: Path, out: Path, metadata: Path | None, url: str, timeout: float, as_json: bool
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
        raise click.ClickException(str(exc)) from exc
    try:
        cases = read_truth(truth, images, metadata)
        with DermaClient(url, timeout=timeout) as client, _progress(len(cases)) as bar:
            report = evaluate_service(client, cases, out, truth, progress=bar.update)
    except DermaError as exc:
        click.echo(f"What was answered is kept in {out}: the same command goes on from there.", err=True)
        _unavailable(exc)
    except (ValueError, OSError) as exc:
        raise click.ClickException(str(exc)) from exc
    click.echo(json.dumps(report) if as_json else f"{summary(report)}\nreport in {out}")
    sys.exit(1 if report["unanswered"] else 0)


@main.command()
@URL
@JSON
def status(url: str, as_json: bool) -> None:
    """Say what is served, and whether it is ready."""
    try:
        report = _status(url)
    except DermaError as exc:
        _unavailable(exc)
    if as_json:
        click.echo(json.dumps(report))
    else:
        click.echo(_readable_status(report))
    sys.exit(0 if report["ready"] else 3)


def _answers(client: DermaClient, paths: list[Path]) -> Iterator[tuple[Path, Diagnosis | Exception]]:
    """Classify in order, a few at a time; ends the program if the service goes away."""
    waiting = iter(paths)
    while batch := list(islice(waiting, IN_FLIGHT)):
        for path, answer in zip(batch, client.classify(batch, return_exceptions=True), strict=True):
            if isinstance(answer, ServiceUnavailable) and not isinstance(answer, Overloaded):
                _unavailable(answer)
            yield path, answer


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
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        if not found:
            raise click.UsageError(f"{path} holds no image ({', '.join(IMAGE_SUFFIXES)})")
        paths.extend(found)
    return paths


def _record(path: Path, answer: Diagnosis | Exception) -> dict[str, Any]:
    if isinstance(answer, Diagnosis):
        return {"image": str(path), **answer.to_dict()}
    return {"image": str(path), "error": type(answer).__name__, "message": str(answer)}


def _readable(path: Path, answer: Diagnosis | Exception) -> str:
    if isinstance(answer, Exception):
        return f"{click.style(str(path), bold=True)}\n  {click.style('error:', fg='red')} {answer}\n"
    lines = [click.style(str(path), bold=True)]
    if alert := _alert(answer):
        lines.append(alert)
    for finding in answer.differential:
        bar = "█" * round(BAR * finding.probability)
        lines.append(f"  {finding.probability:6.1%}  {bar:<{BAR}}  {finding.condition.name}")
    possible = ", ".join(condition.code for condition in answer.prediction_set)
    lines.append(f"  differential at {100 * SET_COVERAGE:.0f} %: {possible}")
    weights = _weights(answer.bundle.name or answer.bundle.digest)
    lines.append(f"  risk {answer.risk:.3f}   triage {answer.triage.name.lower()}   {weights}")
    return "\n".join(lines) + "\n"


def _weights(name: str) -> str:
    """A bundle's name, in red where nobody trained it."""
    return click.style(name, fg="red", bold=True) if RANDOM_WEIGHTS in name else name


def _alert(answer: Diagnosis) -> str | None:
    """Red for high risk, amber for review."""
    best = answer.top.condition
    if answer.high_risk:
        text = f"  HIGH RISK: best match {best.name}, triage {answer.triage.name.lower()}"
        return click.style(text, fg="red", bold=True)
    if answer.triage is Triage.REVIEW:
        return click.style(f"  review: risk {answer.risk:.2f}, best match {best.name}", fg="yellow")
    return None


def _status(url: str) -> dict[str, Any]:
    control = ModelControl(url, timeout=5.0)
    server = control.server()
    models = sorted(control.index(), key=lambda row: (row["name"], row["version"]))
    with DermaClient(url) as client:
        ready = client.ready()
        bundle = vars(client.bundle()) if ready else None
    return {
        "url": url,
        "server": f"{server['name']} {server['version']}",
        "ready": ready,
        "bundle": bundle,
        "models": models,
    }


def _readable_status(report: dict[str, Any]) -> str:
    state = click.style("ready", fg="green") if report["ready"] else click.style("not ready", fg="red")
    lines = [f"{report['url']}  {report['server']}  {CLASSIFIER.name} is {state}"]
    if bundle := report["bundle"]:
        lines.append(
            f"bundle  {_weights(bundle['name'])}  {bundle['precision']}  version {bundle['version']}  "
            f"sha256 {bundle['digest']}"
        )
    for row in report["models"]:
        state = row["state"] or "not loaded"
        lines.append(f"  {row['name']:<18} {row['version'] or '-':>3}  {state}  {row['reason']}".rstrip())
    return "\n".join(lines)


def _progress(images: int) -> Any:
    return click.progressbar(length=images, label="asking", show_pos=True, file=sys.stderr)


def _unavailable(error: Exception) -> Any:
    hint = "Is the address right (--url, DERMA_URL)? `make serve` starts a service."
    click.echo(f"error: {error}\n{hint}", err=True)
    sys.exit(3)
