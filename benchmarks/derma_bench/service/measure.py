"""Measure our service, its variants, others, and the bare engine by turns.

    request = Request(images, bundle=folder, against=("baseline",))
    figures, repeats, subject = measure(request, Plan(), state)

All servers run from the beginning; one at a time is under load.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from derma_bench.load.generator import Generator
from derma_bench.servers.baseline import baseline
from derma_bench.servers.ours import OURS, REPOSITORY, configuration, ours, served, triton
from derma_bench.servers.peer import peer
from derma_bench.servers.processes import Running
from derma_bench.servers.variants import Variant, copy
from derma_bench.service.contenders import (
    LOOP,
    LoopContender,
    Plan,
    ServiceContender,
    served_engine,
    served_graph,
)
from derma_bench.service.summary import summary
from derma_bench.turns import Measured, Turn, by_turns
from derma_training.bundle import Bundle

Contender = ServiceContender | LoopContender
Rival = Callable[[Path, Path], AbstractContextManager[Running]]
AUDITED = "with audit log"
RIVALS: Mapping[str, Rival] = {"baseline": baseline, "peer": peer}


@dataclass(frozen=True)
class Request:
    """The contenders of a comparison.

    Attributes:
        against: names of ``RIVALS``.
        bundle: what they serve.
        variants: of our service, each in a server of its own.
        audited: whether another one of ours keeps an audit log.
        url: of a running service of ours; one is started where it is None.
        loop: measure the bare engine as well.
        processes: that send.
    """

    images: Sequence[bytes]
    against: tuple[str, ...] = ()
    bundle: Path | None = None
    variants: tuple[Variant, ...] = ()
    audited: bool = False
    repository: Path = REPOSITORY
    url: str | None = None
    loop: bool = True
    processes: int = 1


def measure(request: Request, plan: Plan, state: Path) -> Measured:
    """Start everything, measure by turns, end everything.

    Args:
        state: folder for logs and for the variants' repositories.

    Returns:
        Figures, raw repeats, and what was measured.

    Raises:
        ValueError: rivals need a bundle; a variant is not one, or has a name that is taken;
            the service serves another engine than we know.
        ServiceFailed: something did not start.
    """
    _check(request)
    # Nothing starts before every snippet has parsed.
    starting = [ours(request.url, request.repository, state / OURS), *_variants(request, state)]
    if request.audited:
        starting.append(triton(request.repository, state / "audited", AUDITED, audit=True))
    starting += [RIVALS[name](request.bundle or Path(), state / name) for name in request.against]
    with ExitStack() as stack:
        running = [stack.enter_context(one) for one in starting]
        subject = _subject(request, running)
        generator = stack.enter_context(Generator(request.images, request.processes))
        rows = by_turns(turns(_contenders(request, running, generator), plan), plan.repeats)
    return summary(rows, OURS), rows, subject


def turns(contenders: Sequence[Contender], plan: Plan) -> list[Turn]:
    """Every contender at every concurrency."""
    return [
        ({"contender": one.name, "concurrency": level}, partial(one.measure, level, plan))
        for level in plan.concurrency
        for one in contenders
    ]


def _check(request: Request) -> None:
    if request.against and request.bundle is None:
        raise ValueError("--against needs --bundle: what the others serve")
    if (request.variants or request.audited) and request.url:
        raise ValueError(
            "--variant and --audited start servers of their own: they cannot change the one at --url "
            f"{request.url}"
        )
    taken = {OURS, LOOP, AUDITED, *RIVALS}
    for variant in request.variants:
        if not variant.name.strip() or variant.name in taken:
            raise ValueError(f"{variant} needs a name of its own; taken are {', '.join(sorted(taken))}")
        taken.add(variant.name)


def _variants(request: Request, state: Path) -> Iterator[AbstractContextManager[Running]]:
    # Each launcher reads its profile from the environment.
    profile = os.environ.get("DERMA_PROFILE")
    for number, variant in enumerate(request.variants, 1):
        folder = state / f"variant-{number}"
        models = copy(request.repository, variant, folder / "models", profile)
        yield triton(models, folder, variant.name)


def _contenders(request: Request, running: Sequence[Running], generator: Generator) -> list[Contender]:
    contenders: list[Contender] = [ServiceContender(one, generator) for one in running]
    if request.loop:
        graph = served_graph(request.repository)
        engine = served_engine(configuration(running[0].url))
        contenders.append(LoopContender(graph, engine, request.images))
    return contenders


def _subject(request: Request, running: Sequence[Running]) -> dict[str, Any]:
    """Describe what was measured; a rival with other weights is named as such."""
    subject = served(running[0].url) | {"sending_processes": request.processes}
    if request.variants:
        subject["variants"] = {one.name: one.snippet for one in request.variants}
    if request.bundle is not None:
        bundle = Bundle.open(request.bundle)
        subject |= {"rival_bundle_name": bundle.name, "rival_bundle_digest": bundle.digest}
        subject["same_bundle"] = bundle.digest == subject.get("bundle_digest")
    return subject | {f"{one.name}_facts": dict(one.facts) for one in running if one.facts}
