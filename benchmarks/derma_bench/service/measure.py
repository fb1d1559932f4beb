"""``derma-bench service``: our service against others and against the bare engine.

figures, repeats, subject = measure(Request(images, bundle=folder, against=("baseline",)), Plan(), state)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from derma_bench.comparison import Contender, Plan, compare, summary
from derma_bench.contenders import LoopContender, ServiceContender, served_engine, served_graph
from derma_bench.generator import Generator
from derma_bench.services import OURS, REPOSITORY, Running, baseline, configuration, ours, served
from derma_training.bundle import Bundle

Measured = tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]
Rival = Callable[[Path, Path], AbstractContextManager[Running]]


@dataclass(frozen=True)
class Request:
    """What to compare.

    Attributes:
        against: names of ``RIVALS``.
        bundle: what they serve.
        url: of a running service of ours; one is started where it is None.
        loop: measure the bare engine as well.
        processes: that send.
    """

    images: Sequence[bytes]
    against: tuple[str, ...] = ()
    bundle: Path | None = None
    repository: Path = REPOSITORY
    url: str | None = None
    loop: bool = True
    processes: int = 1


@contextmanager
def peer(bundle: Path, state: Path) -> Iterator[Running]:
    """The public peer, in an environment of its own; see ``peer.py``."""
    from derma_bench.peer import peer as start  # its needs are nobody else's

    with start(bundle, state) as running:
        yield running


RIVALS: Mapping[str, Rival] = {"baseline": baseline, "peer": peer}


def measure(request: Request, plan: Plan, state: Path, *, rivals: Mapping[str, Rival] = RIVALS) -> Measured:
    """Start everything, measure by turns, end everything.

    Args:
        state: folder for logs.

    Returns:
        Figures, raw repeats, and what was measured.

    Raises:
        ValueError: rivals need a bundle; the service serves another engine than we know.
        ServiceFailed: something did not start.
    """
    if request.against and request.bundle is None:
        raise ValueError("--against needs --bundle: what the others serve")
    with ExitStack() as stack:
        running = [stack.enter_context(ours(request.url, request.repository, state / OURS))]
        for name in request.against:
            running.append(stack.enter_context(rivals[name](request.bundle or Path(), state / name)))
        subject = _subject(request, running)
        generator = stack.enter_context(Generator(request.images, request.processes))
        contenders = _contenders(request, running, generator)
        with tqdm(total=plan.repeats * len(plan.concurrency) * len(contenders), desc="measuring") as bar:
            rounds = compare(contenders, plan, lambda turn: _tell(bar, turn))
            bar.update(bar.total - bar.n)
    return summary(rounds, OURS), rounds, subject


def _tell(bar: Any, turn: str) -> None:
    """Called as a turn begins, so one less is done."""
    if bar.postfix:
        bar.update()
    bar.set_postfix_str(turn)


def _contenders(request: Request, running: Sequence[Running], generator: Generator) -> list[Contender]:
    contenders: list[Contender] = [
        ServiceContender(one, generator, [other for other in running if other is not one]) for one in running
    ]
    if request.loop:
        graph = served_graph(request.repository)
        engine = served_engine(configuration(running[0].url))
        contenders.append(LoopContender(graph, engine, request.images))
    return contenders


def _subject(request: Request, running: Sequence[Running]) -> dict[str, Any]:
    """What was measured; rivals may serve other weights, which is then said."""
    subject = served(running[0].url) | {"sending_processes": request.processes}
    if request.bundle is not None:
        bundle = Bundle.open(request.bundle)
        subject |= {"rival_bundle_name": bundle.name, "rival_bundle_digest": bundle.digest}
        subject["same_bundle"] = bundle.digest == subject.get("bundle_digest")
    return subject | {f"{one.name}_facts": dict(one.facts) for one in running if one.facts}
