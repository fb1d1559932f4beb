"""Contenders measured by turns, and what their figures say of each other.

    rounds = compare([ours, baseline], plan, progress)
    summary(rounds, "derma")["levels"][0]["ratios"]["baseline"]     # {"median": 4.2, "min": ...}

By turns (ABAB ...), because a machine's speed drifts: a ratio is that of two neighbours in
time, and what is reported is the median of such ratios with the smallest and the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

LATENCIES = ("p50", "p95", "p99")


@dataclass(frozen=True)
class Plan:
    """How long and how often; ``concurrency`` are the numbers of requests under way."""

    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16)
    seconds: float = 10.0
    repeats: int = 3
    warm_up: float = 2.0


class Contender(Protocol):
    """Something that classifies images at a rate."""

    name: str

    def measure(self, concurrency: int, plan: Plan) -> dict[str, Any]:
        """One measurement: at least ``throughput``, ``latency_ms`` and ``failures``."""
        ...


def compare(
    contenders: Sequence[Contender], plan: Plan, progress: Callable[[str], object] = lambda _: None
) -> list[dict[str, Any]]:
    """Every contender at every concurrency, ``repeats`` times over."""
    rounds = []
    for repeat in range(plan.repeats):
        for concurrency in plan.concurrency:
            for contender in contenders:
                progress(f"{contender.name} x{concurrency}")
                row = contender.measure(concurrency, plan)
                rounds.append(
                    {"contender": contender.name, "concurrency": concurrency, "repeat": repeat, **row}
                )
    return rounds


def summary(rounds: Sequence[dict[str, Any]], ours: str) -> dict[str, Any]:
    """Figures a concurrency, and those of each contender at its own best concurrency."""
    levels = sorted({row["concurrency"] for row in rounds})
    names = list(dict.fromkeys(row["contender"] for row in rounds))
    best = {name: _best(_of(rounds, name)) for name in names}
    return {
        "levels": [_level(rounds, names, ours, concurrency) for concurrency in levels],
        "best": {name: spread(values) for name, values in best.items()},
        "best_ratios": _ratios(best, ours),
    }


def ratio(ours: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of the ratios of pairs that were measured together.

    Raises:
        ValueError: not pairs, or one of the others did nothing.
    """
    if len(ours) != len(others) or not ours:
        raise ValueError(f"{len(ours)} and {len(others)} measurements are no pairs")
    if min(others) <= 0:
        raise ValueError("a contender answered nothing, so that there is no ratio to it")
    return spread([a / b for a, b in zip(ours, others)])


def _ratios(rates: Mapping[str, Sequence[float]], ours: str) -> dict[str, dict[str, float]]:
    """To each of the others that answered in every turn."""
    others = {name: values for name, values in rates.items() if name != ours and min(values) > 0}
    return {name: ratio(rates[ours], values) for name, values in others.items()}


def spread(values: Iterable[float]) -> dict[str, float]:
    values = list(values)
    return {"median": median(values), "min": min(values), "max": max(values)}


def _level(
    rounds: Sequence[dict[str, Any]], names: Sequence[str], ours: str, concurrency: int
) -> dict[str, Any]:
    rows = {name: [row for row in _of(rounds, name) if row["concurrency"] == concurrency] for name in names}
    rates = {name: [row["throughput"] for row in rows[name]] for name in names}
    level: dict[str, Any] = {
        "concurrency": concurrency,
        "contenders": {name: _contender(rows[name]) for name in names},
        "ratios": _ratios(rates, ours),
    }
    for key in ("occupancy", "stages_ms"):
        if found := [row[key] for row in rows[ours] if key in row]:
            level[key] = {part: median(one.get(part, 0.0) for one in found) for part in found[0]}
    return level


def _contender(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    latencies = [row["latency_ms"] for row in rows if row["latency_ms"]]
    return {
        "throughput": spread(row["throughput"] for row in rows),
        "latency_ms": {q: median(one[q] for one in latencies) for q in LATENCIES if latencies},
        "failures": sum(sum(row["failures"].values()) for row in rows),
        "idle_cores": max((row.get("idle_cores", 0.0) for row in rows), default=0.0),
    }


def _best(rows: Sequence[dict[str, Any]]) -> list[float]:
    """The highest throughput of each repeat, whatever its concurrency."""
    repeats = sorted({row["repeat"] for row in rows})
    return [max(row["throughput"] for row in rows if row["repeat"] == repeat) for repeat in repeats]


def _of(rounds: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row for row in rounds if row["contender"] == name]
