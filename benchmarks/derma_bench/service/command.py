"""``derma-bench service``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from derma_bench import options
from derma_bench.failures import reported
from derma_bench.outcome import finish
from derma_bench.payloads import described, payloads


@click.command()
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
@click.option(
    "--bundle",
    type=options.FOLDER,
    help="What the others serve: the bundle that ours was exported from.",
)
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
@options.out("service")
@options.service
def service(
    concurrency: str,
    seconds: float,
    warm_up: float,
    repeats: int,
    against: tuple[str, ...],
    bundle: Path | None,
    variants: tuple[tuple[str, str], ...],
    audited: bool,
    loop: bool,
    out: Path,
    **common: Any,
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
    from derma_bench.servers.variants import Variant
    from derma_bench.service.comparison import Plan
    from derma_bench.service.measure import Request, measure

    smoke, url = common["smoke"], common["url"]
    plan = Plan(_numbers(concurrency), seconds, repeats, warm_up)
    if smoke:
        plan = Plan((1, 2), 1.0, 1, 0.2)
    with reported(), tempfile.TemporaryDirectory(prefix="derma-bench-") as state:
        images = payloads(common["images"])
        request = Request(
            images,
            against=tuple(dict.fromkeys(against)),
            bundle=bundle,
            variants=tuple(Variant(*pair) for pair in variants),
            audited=audited,
            loop=loop and (url is None or common["repository"] is not None),
            **options.chosen(common),
        )
        figures, repeated, subject = measure(request, plan, Path(state))
        subject |= {"payloads": described(common["images"], images)}
        finish("service", out, (figures, repeated, subject), smoke=smoke)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError as exc:
        raise click.BadParameter(f"{text!r} is no list such as 1,2,4", param_hint="--concurrency") from exc
    if min(numbers) < 1:
        raise click.BadParameter("numbers start at 1", param_hint="--concurrency")
    return numbers
