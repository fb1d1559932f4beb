"""``derma-bench service``, ``saturate`` and ``bulk``: services under load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from derma_bench.commands.options import (
    COUNT,
    FOLDER,
    SECONDS,
    finish,
    given,
    images,
    measurement,
    number,
    senders,
    session,
    target,
)


def parsed_numbers(_: Any, __: Any, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError as exc:
        raise click.BadParameter(f"{text!r} is no list such as 1,2,4") from exc
    if min(numbers) < 1:
        raise click.BadParameter("numbers start at 1")
    return numbers


@click.command(short_help="Throughput and latency at rising concurrency, beside others, by turns.")
@click.option(
    "--concurrency",
    default="1,2,4,8,16",
    show_default=True,
    callback=parsed_numbers,
    help="Requests in flight, by commas.",
)
@number("--seconds", SECONDS, 10.0, "Of a turn.")
@number("--warm-up", click.FloatRange(min=0), 2.0, "Before a turn.")
@number("--repeats", COUNT, 3)
@click.option(
    "--against",
    type=click.Choice(["baseline", "peer"]),
    multiple=True,
    help="Compare with FastAPI and PyTorch (baseline), a public server (peer); may be repeated.",
)
@click.option("--bundle", type=FOLDER, help="What the others serve: the bundle that ours was exported from.")
@click.option(
    "--variant",
    "variants",
    nargs=2,
    multiple=True,
    metavar="NAME SNIPPET",
    help="Compare with our service under a changed configuration; may be repeated.",
)
@click.option("--audited", is_flag=True, help="Compare with our service when it keeps an audit log.")
@click.option("--loop/--no-loop", default=True, show_default=True, help="Measure the bare engine as well.")
@senders
@measurement
def service(
    concurrency: tuple[int, ...],
    seconds: float,
    warm_up: float,
    repeats: int,
    against: tuple[str, ...],
    bundle: Path | None,
    variants: tuple[tuple[str, str], ...],
    audited: bool,
    loop: bool,
    **options: Any,
) -> None:
    """Throughput and latency at rising concurrency, beside others, by turns.

    Only one service is under load at a time. With --url the bare engine is measured only if
    --repository names what runs there.

    A variant is our service with a SNIPPET of config.pbtxt merged into the network's: what the
    snippet states is replaced, lists as a whole. One that says name: "derma_preprocess" changes
    that model instead.

    \b
        derma-bench service --variant "delay 1 ms" "dynamic_batching { max_queue_delay_microseconds: 1000 }"
    """
    from derma_bench.payloads import described, payloads
    from derma_bench.servers.variants import Variant
    from derma_bench.service.contenders import Plan
    from derma_bench.service.measure import Request, measure

    plan = Plan((1, 2), 1.0, 1, 0.2) if options["smoke"] else Plan(concurrency, seconds, repeats, warm_up)
    with session() as state:
        found = payloads(options["images"])
        request = Request(
            found,
            against=tuple(dict.fromkeys(against)),
            bundle=bundle,
            variants=tuple(Variant(*pair) for pair in variants),
            audited=audited,
            loop=loop and (options["url"] is None or options["repository"] is not None),
            **given(options),
        )
        figures, rows, subject = measure(request, plan, state)
        subject |= {"payloads": described(options["images"], found)}
        finish("service", options, figures, rows, subject)


@click.command(short_help="The highest Poisson arrival rate whose p99 stays under a limit.")
@click.option(
    "--p99",
    type=click.FloatRange(min=0, min_open=True),
    required=True,
    help="Limit of the 99th percentile, ms.",
)
@number("--seconds", SECONDS, 10.0, "Of a probe.")
@click.option(
    "--start", type=click.FloatRange(min=0, min_open=True), help="First rate; default: from a closed loop."
)
@number("--probes", COUNT, 14, "At most.")
@number("--seed", click.INT, 0, "Of the arrivals.")
@senders
@measurement
def saturate(p99: float, seconds: float, start: float | None, probes: int, seed: int, **options: Any) -> None:
    """Find the highest Poisson arrival rate whose p99 stays under a limit, with no failure.

    A probe takes longer than --seconds where it would hold fewer than 200 requests, or last
    less than 30 times the limit: a queue that only grows must have time to pass it. The rate is
    tried again with other arrivals. Then latency is measured at 70 % of that rate, and with one
    request at a time.
    """
    from derma_bench.payloads import described, payloads
    from derma_bench.saturate import Request, measure

    sizes: dict[str, Any] = {"seconds": seconds, "probes": probes}
    if options["smoke"]:
        sizes = {"seconds": 0.5, "probes": 3, "samples": 5, "backlog": 0}
    with session() as state:
        found = payloads(options["images"])
        request = Request(p99, start=start, seed=seed, **sizes, **given(options))
        figures, rows, subject = measure(found, request, state)
        subject |= {"payloads": described(options["images"], found)}
        finish("saturate", options, figures, rows, subject)


@click.command(short_help="Images a second of `derma bulk`, beside the service's highest rate.")
@images("Folder of JPEG files.", required=True)
@number("--repeats", COUNT, 3)
@number("--seconds", SECONDS, 20.0, "Of the service's highest rate before each run.")
@number("--kills", click.IntRange(min=0), 2, "Of the last run.")
@target
@measurement
def bulk(images: Path, repeats: int, seconds: float, kills: int, **options: Any) -> None:
    """Images a second of `derma bulk` over a folder, beside the service's highest rate.

    The service is first kept as busy as `derma bulk` keeps it, with the same images from memory,
    then the command reads the folder, sends its images, and writes its table; by turns. A last run
    is ended by SIGKILL as often as --kills says, and must go on until every image has one row.
    """
    from derma_bench.bulk import measure
    from derma_bench.payloads import described, payloads

    if options["smoke"]:
        repeats, seconds, kills = 1, 0.5, 1
    with session() as state:
        sizes: dict[str, Any] = {"repeats": repeats, "seconds": seconds, "kills": kills}
        figures, rows, subject = measure(images, state, **sizes, **given(options))
        subject |= {"payloads": described(images, payloads(images))}
        finish("bulk", options, figures, rows, subject)
