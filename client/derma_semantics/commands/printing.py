"""How answers look, for people and as JSON; and how a command ends without a service."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import click

from derma_semantics.commands.terminal import Exit, escaped
from derma_semantics.domain.contract import RANDOM_WEIGHTS, SET_COVERAGE, Triage
from derma_semantics.domain.diagnosis import Diagnosis
from derma_semantics.domain.numbers import significant
from derma_semantics.saliency import NO_MAPS

BAR = 30
SERVICE_HINT = "Is the address right (--url, DERMA_URL)? `make serve` starts a service."
SIDECAR_HINT = (
    "Is the address right (--saliency-url, DERMA_SALIENCY_URL)? `derma-saliency serve` starts a sidecar. "
    f"{NO_MAPS}"
)


class Refused(click.ClickException):
    """The command cannot be done as it was given."""

    exit_code = Exit.USAGE

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message))


def record(path: Path, answer: Diagnosis | Exception) -> dict[str, Any]:
    """An answer or a failure as JSON types."""
    if isinstance(answer, Diagnosis):
        return {"image": str(path), **answer.to_dict(), "request_id": answer.request_id}
    failure = {"image": str(path), "error": type(answer).__name__, "message": str(answer)}
    return failure | {"request_id": getattr(answer, "request_id", None)}


def say_failure(path: Path, error: Exception, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(record(path, error)))
        return
    name, mark = click.style(escaped(path), bold=True), click.style("error:", fg="red")
    click.echo(f"{name}\n  {mark} {escaped(str(error))}\n", err=True)


def readable(path: Path, answer: Diagnosis) -> str:
    """A bar a condition, and a red or amber line above them."""
    lines = [click.style(escaped(path), bold=True)]
    if alert := _alert(answer):
        lines.append(alert)
    for finding in answer.differential:
        bar = "█" * round(BAR * finding.probability)
        lines.append(f"  {finding.probability:6.1%}  {bar:<{BAR}}  {finding.condition.name}")
    possible = ", ".join(condition.code for condition in answer.prediction_set)
    lines.append(f"  differential at {100 * SET_COVERAGE:.0f} %: {possible}")
    name = weights(answer.bundle.name or answer.bundle.digest)
    lines += [click.style(f"  {reason.hint}", fg="yellow") for reason in answer.quality]
    lines.append(f"  risk {significant(answer.risk)}   triage {answer.triage.name.lower()}   {name}")
    return "\n".join(lines) + "\n"


def weights(name: str) -> str:
    """A bundle's name, in red where nobody trained it."""
    return click.style(name, fg="red", bold=True) if RANDOM_WEIGHTS in name else name


def progress(total: int | None, done: int = 0, *, quiet: bool) -> AbstractContextManager[Any]:
    """A bar with rate and time left, on stderr; nothing where that is no terminal."""
    from tqdm import tqdm

    return tqdm(  # type: ignore[no-any-return]
        total=total,
        initial=done,
        unit=" images",
        file=sys.stderr,
        dynamic_ncols=True,
        disable=True if quiet else None,
    )


def unavailable(error: Exception, hint: str = SERVICE_HINT) -> NoReturn:
    click.echo(f"error: {escaped(str(error))}\n{hint}", err=True)
    sys.exit(Exit.UNAVAILABLE)


def _alert(answer: Diagnosis) -> str | None:
    """Red for high risk, amber for review."""
    best = answer.top.condition
    if answer.high_risk:
        text = f"  HIGH RISK: best match {best.name}, triage {answer.triage.name.lower()}"
        return click.style(text, fg="red", bold=True)
    if answer.triage is Triage.REVIEW:
        return click.style(f"  review: risk {significant(answer.risk)}, best match {best.name}", fg="yellow")
    return None
