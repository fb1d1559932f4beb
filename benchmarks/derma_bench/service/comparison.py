"""Contenders measured by turns, and what their figures say of each other.

    rounds = compare([ours, baseline], plan, progress)
    summary(rounds, "derma")["levels"][0]["ratios"]["baseline"]     # {"median": 4.2, "min": ...}

By turns (ABAB ...), because a machine's speed drifts: a ratio is that of two neighbours in
time, and what is reported is the median of such ratios with the smallest and the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

from derma_bench.ratios import ratio, spread

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
    """Figures a concurrency, and those of each contender at its best.

    ``best`` takes the highest throughput of each repeat, so ``best_ratios`` compares contenders
    at different concurrencies, each at its own best: what they can give, not what they give alike.
    """
    levels = sorted({row["concurrency"] for row in rounds})
    names = list(dict.fromkeys(row["contender"] for row in rounds))
    best = {name: _best(_of(rounds, name)) for name in names}
    return {
        "levels": [_level(rounds, names, ours, concurrency) for concurrency in levels],
        "best": {name: spread(values) for name, values in best.items()},
        "best_ratios": _ratios(best, ours),
    }


def _ratios(rates: Mapping[str, Sequence[float]], ours: str) -> dict[str, dict[str, float]]:
    """To each of the others that answered in every turn."""
    others = {name: values for name, values in rates.items() if name != ours and min(values) > 0}
    return {name: ratio(rates[ours], values) for name, values in others.items()}


def _level(
    rounds: Sequence[dict[str, Any]], names: Sequence[str], ours: str, concurrency: int
) -> dict[str, Any]:
    rows = {name: [row for row in _of(rounds, name) if row["concurrency"] == concurrency] for name in names}
    rates = {name: [row["throughput"] for row in rows[name]] for name in names}
    return {
        "concurrency": concurrency,
        "contenders": {
            name: _contender(rows[name]) | (_inside(rows[name]) if name != ours else {}) for name in names
        },
        "ratios": _ratios(rates, ours),
        **_inside(rows[ours]),
    }


def _contender(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    latencies = [row["latency_ms"] for row in rows if row["latency_ms"]]
    return {
        "throughput": spread(row["throughput"] for row in rows),
        "latency_ms": {q: median(one[q] for one in latencies) for q in LATENCIES if latencies},
        "failures": sum(sum(row["failures"].values()) for row in rows),
        "idle_cores": max((row.get("idle_cores", 0.0) for row in rows), default=0.0),
    }


def _inside(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Batch occupancy and stages, where the server tells them."""
    found = {key: [row[key] for row in rows if key in row] for key in ("occupancy", "stages_ms")}
    return {
        key: {part: median(one.get(part, 0.0) for one in values) for part in values[0]}
        for key, values in found.items()
        if values
    }


def _best(rows: Sequence[dict[str, Any]]) -> list[float]:
    """The highest throughput of each repeat, whatever its concurrency."""
    repeats = sorted({row["repeat"] for row in rows})
    return [max(row["throughput"] for row in rows if row["repeat"] == repeat) for repeat in repeats]


def _of(rounds: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row for row in rounds if row["contender"] == name]
