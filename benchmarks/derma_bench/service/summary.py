"""Figures of ``derma-bench service``, from the rows of its turns.

    summary(rows, "derma")["levels"][0]["ratios"]["baseline"]     # {"median": 4.2, "min": ...}

A row has at least ``contender``, ``concurrency``, ``round``, ``throughput``, ``latency_ms`` and ``failures``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from derma_bench.turns import Row, column, ratio, select, spread

LATENCIES = ("p50", "p95", "p99")
INSIDE = ("occupancy", "stages_ms")  # by Triton's statistics


def summary(rows: Sequence[Row], ours: str) -> Row:
    """Figures a concurrency, and those of each contender at its best.

    ``best`` takes the highest throughput of each round, so ``best_ratios`` compares contenders
    at different concurrencies, each at its own best: what they can give, not what they give alike.
    """
    names = list(dict.fromkeys(row["contender"] for row in rows))
    rounds = sorted({row["round"] for row in rows})
    best = {
        name: [max(column(rows, "throughput", contender=name, round=number)) for number in rounds]
        for name in names
    }
    levels = sorted({row["concurrency"] for row in rows})
    return {
        "levels": [_level(select(rows, concurrency=level), names, ours, level) for level in levels],
        "best": {name: spread(values) for name, values in best.items()},
        "best_ratios": _ratios(best, ours),
    }


def _ratios(rates: Mapping[str, Sequence[float]], ours: str) -> dict[str, dict[str, float]]:
    """To each of the others that answered in every turn."""
    others = {name: values for name, values in rates.items() if name != ours and min(values) > 0}
    return {name: ratio(rates[ours], values) for name, values in others.items()}


def _level(rows: Sequence[Row], names: Sequence[str], ours: str, concurrency: int) -> Row:
    found = {name: _contender(select(rows, contender=name)) for name in names}
    # Our own occupancy and stages stand beside the contenders, not among them.
    inside: Row = {key: found[ours].pop(key) for key in INSIDE if key in found[ours]}
    rates = {name: column(rows, "throughput", contender=name) for name in names}
    return {"concurrency": concurrency, "contenders": found, "ratios": _ratios(rates, ours), **inside}


def _contender(rows: Sequence[Row]) -> dict[str, Any]:
    latencies = [row["latency_ms"] for row in rows if row["latency_ms"]]
    figures = {
        "throughput": spread(row["throughput"] for row in rows),
        "latency_ms": {q: median(one[q] for one in latencies) for q in LATENCIES if latencies},
        "failures": sum(sum(row["failures"].values()) for row in rows),
    }
    for key in INSIDE:
        if parts := [row[key] for row in rows if key in row]:
            figures[key] = {part: median(one.get(part, 0.0) for one in parts) for part in parts[0]}
    return figures
