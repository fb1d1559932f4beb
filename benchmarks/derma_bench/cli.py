"""derma-bench: measure the service and what it is made of.

    derma-bench engine   --help                          # the bare engine against the processor's limit
    derma-bench decode   --help                          # JPEG to pixels
    derma-bench service  --bundle training/bundles/derma-mini --against baseline
    derma-bench saturate --p99 100                       # the highest arrival rate
    derma-bench report   .run/bench/*.json --out .run/bench/report

Every run is one JSON file with the machine, the versions, the weights' digest, the command
and every raw figure; `report` makes tables and plots of such files. `--smoke` runs a command
in seconds to see that it works; its figures mean nothing, and the result says so.
A profile of the repository, such as cuda, is chosen as for the service: DERMA_PROFILE=cuda.
For load by hand, with a web page or from several machines: benchmarks/locustfile.py.
"""

from __future__ import annotations

import importlib
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from derma_bench.payloads import described, payloads
from derma_semantics.errors import DermaError
from derma_semantics.terminal import help_text

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
RUNS = Path(".run/bench")
# Commands that live in their own module, with their own options.
ELSEWHERE = {"engine": "derma_bench.engines", "decode": "derma_bench.decode"}


class Commands(click.Group):
    """Loads a command's module when it is asked for, so that the others need not what it needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(importlib.import_module(ELSEWHERE[cmd_name]), cmd_name)
        return command


@click.group(cls=Commands, help=help_text(__doc__))
def main() -> None:
    # Ended early, what was started must still be ended: SIGTERM unwinds as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _options(command: Any) -> Any:
    """Those that `service` and `saturate` share."""
    for option in (
        click.option("--smoke", is_flag=True, help="Tiny sizes, to see that it works."),
        click.option(
            "--processes",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="That send; one manages some hundred requests a second.",
        ),
        click.option(
            "--images", type=FOLDER, help="Folder of JPEG files to send; default: drawn, 600 x 450."
        ),
        click.option("--url", metavar="HOST:PORT", help="Measure the running service at this gRPC address."),
        click.option(
            "--repository",
            type=FOLDER,
            help="Model repository to start the service with.  [default: model_repository]",
        ),
    ):
        command = option(command)
    return command


def _out(name: str) -> Callable[[Any], Any]:
    return click.option(
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        default=RUNS / f"{name}.json",
        show_default=True,
        help="Result to write.",
    )


@main.command()
@click.option("--concurrency", default="1,2,4,8,16", show_default=True, help="Requests under way, by commas.")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Of a turn.")
@click.option(
    "--warm-up", type=click.FloatRange(min=0), default=2.0, show_default=True, help="Before a turn."
)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--against",
    type=click.Choice(["baseline", "peer"]),
    multiple=True,
    help="Compare with FastAPI and PyTorch (baseline), a public server (peer); may be repeated.",
)
@click.option("--bundle", type=FOLDER, help="What the others serve: the bundle that ours was exported from.")
@click.option("--loop/--no-loop", default=True, show_default=True, help="Measure the bare engine as well.")
@_out("service")
@_options
def service(
    concurrency: str,
    seconds: float,
    warm_up: float,
    repeats: int,
    against: tuple[str, ...],
    bundle: Path | None,
    loop: bool,
    out: Path,
    **common: Any,
) -> None:
    """Throughput and latency at rising concurrency, beside others, by turns.

    Only one service is under load at a time. With --url the bare engine is measured only if
    --repository names what runs there.
    """
    from derma_bench.comparison import Plan
    from derma_bench.service import Request, measure

    smoke, url = common["smoke"], common["url"]
    plan = Plan(_numbers(concurrency), seconds, repeats, warm_up)
    if smoke:
        plan = Plan((1, 2), 1.0, 1, 0.2)
    loop = loop and (url is None or common["repository"] is not None)
    with _reported(), _state() as state:
        images = payloads(common["images"])
        request = Request(images, tuple(dict.fromkeys(against)), bundle, **_where(common), loop=loop)
        result = measure(request, plan, state)
        _finish("service", out, result, common["images"], images, smoke)


@main.command()
@click.option(
    "--p99",
    type=click.FloatRange(min=0, min_open=True),
    required=True,
    help="Limit of the 99th percentile, ms.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Of a probe."
)
@click.option(
    "--start", type=click.FloatRange(min=0, min_open=True), help="First rate; default: from a closed loop."
)
@click.option("--probes", type=click.IntRange(min=1), default=14, show_default=True, help="At most.")
@click.option("--seed", default=0, show_default=True, help="Of the arrivals.")
@_out("saturate")
@_options
def saturate(
    p99: float, seconds: float, start: float | None, probes: int, seed: int, out: Path, **common: Any
) -> None:
    """Find the highest Poisson arrival rate whose p99 stays under a limit, with no failure.

    A probe takes longer than --seconds where it would hold fewer than 200 requests, or last
    less than 30 times the limit: a queue that only grows must have time to pass it. The rate is
    tried again with other arrivals. Then latency is measured at 70 % of that rate, and with one
    request at a time.
    """
    from derma_bench.saturate import Request, measure

    sizes: dict[str, Any] = {"seconds": seconds, "probes": probes}
    if common["smoke"]:
        sizes = {"seconds": 0.5, "probes": 3, "samples": 5, "backlog": 0}
    with _reported(), _state() as state:
        images = payloads(common["images"])
        request = Request(p99, start=start, seed=seed, **sizes, **_where(common))
        result = measure(images, request, state)
        _finish("saturate", out, result, common["images"], images, common["smoke"])


@main.command()
@click.argument("runs", nargs=-1, required=True, type=FILE, metavar="RUN.json...")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write."
)
def report(runs: tuple[Path, ...], out: Path) -> None:
    """Write table.md and plots (PNG) of stored runs."""
    from derma_bench.report import write_report

    with _reported():
        for path in write_report(runs, out):
            click.echo(path)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError as exc:
        raise click.BadParameter(f"{text!r} is no list such as 1,2,4", param_hint="--concurrency") from exc
    if min(numbers) < 1:
        raise click.BadParameter("numbers start at 1", param_hint="--concurrency")
    return numbers


def _where(common: dict[str, Any]) -> dict[str, Any]:
    given = {name: common[name] for name in ("url", "repository", "processes")}
    return {name: value for name, value in given.items() if value is not None}


def _finish(
    command: str,
    out: Path,
    result: tuple[Any, Any, Any],
    folder: Path | None,
    images: list[bytes],
    smoke: bool,
) -> None:
    from derma_bench import record
    from derma_bench.table import markdown

    figures, repeats, subject = result
    subject = {**subject, "payloads": described(folder, images)}
    made = record.make(command, figures, repeats, smoke=smoke, subject=subject)
    record.write(out, made)
    click.echo(f"{markdown(made)}\nresult in {out}")


@contextmanager
def _state() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="derma-bench-") as folder:
        yield Path(folder)


@contextmanager
def _reported() -> Iterator[None]:
    from derma_bench.processes import ServiceFailed
    from derma_export.engine import EngineUnavailable

    try:
        yield
    except (EngineUnavailable, ServiceFailed, DermaError, ValueError, OSError, ImportError) as exc:
        raise click.ClickException(str(exc)) from exc


if __name__ == "__main__":
    main()
