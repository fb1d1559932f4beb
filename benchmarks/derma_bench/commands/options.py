"""Options that commands share, and the frame of a measurement.

@click.command()
@senders
@measurement
def service(**options):
    with session() as state:
        finish("service", options, *measure(..., state))
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
RUNS = Path(".run/bench")
COUNT = click.IntRange(min=1)
SECONDS = click.FloatRange(min=0.01)

Option = Callable[[Any], Any]


def number(name: str, kind: Any, default: float | None, meaning: str | None = None) -> Option:
    """An option with a number, shown with its default."""
    return click.option(name, type=kind, default=default, show_default=True, help=meaning)


def images(meaning: str, required: bool = False) -> Option:
    return click.option("--images", type=FOLDER, required=required, help=meaning)


def measurement(command: Any) -> Any:
    """Options of every command that measures."""
    smoke = click.option("--smoke", is_flag=True, help="Tiny sizes, to see that it works.")
    path = click.Path(dir_okay=False, path_type=Path)
    default = RUNS / f"{command.__name__}.json"
    return click.option("--out", type=path, default=default, show_default=True, help="Result to write.")(
        smoke(command)
    )


def target(command: Any) -> Any:
    """Options of commands that put a service of ours under load."""
    url = click.option("--url", metavar="HOST:PORT", help="Measure the running service at this gRPC address.")
    text = "Model repository to start the service with.  [default: model_repository]"
    return url(click.option("--repository", type=FOLDER, help=text)(command))


def senders(command: Any) -> Any:
    meaning = "Processes that send; one manages some hundred requests a second."
    command = images("Folder of JPEG files to send; default: drawn, 600 x 450.")(target(command))
    return number("--processes", COUNT, 1, meaning)(command)


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Those of ``url``, ``repository`` and ``processes`` that were given."""
    names = ("url", "repository", "processes")
    return {name: options[name] for name in names if options.get(name) is not None}


@contextmanager
def session() -> Iterator[Path]:
    """A folder for logs and state; expected failures end with one sentence and exit code 1."""
    from derma_bench.servers.processes import ServiceFailed
    from derma_semantics.domain.errors import DermaError
    from derma_serving.runtime.engine import EngineUnavailable

    try:
        with tempfile.TemporaryDirectory(prefix="derma-bench-") as state:
            yield Path(state)
    except (EngineUnavailable, ServiceFailed, DermaError, ValueError, OSError, ImportError) as exc:
        raise click.ClickException(str(exc)) from exc
    except BrokenExecutor as exc:
        raise click.ClickException(
            f"a process that sends images died, perhaps for want of memory: try fewer --processes ({exc})"
        ) from exc


def finish(command: str, options: dict[str, Any], figures: Any, rows: Any, subject: dict[str, Any]) -> None:
    """Store a run and print its tables."""
    from derma_bench.report import record
    from derma_bench.report.table import markdown

    made = record.make(command, figures, rows, smoke=options["smoke"], subject=subject)
    record.write(options["out"], made)
    click.echo(f"{markdown(made)}\nresult in {options['out']}")
