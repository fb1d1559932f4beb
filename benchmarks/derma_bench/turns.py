"""Measurements by turns, and their figures: never one number, always its spread.

    rows = by_turns([({"engine": "a"}, measure_a), ({"engine": "b"}, measure_b)], rounds=3)
    ratio(column(rows, "rate", engine="a"), column(rows, "rate", engine="b"))
    # {"median": 2.5, "min": 2, "max": 3}

By turns (ABAB ...), because a machine's speed drifts: a ratio is that of two neighbours in
time, and a figure is the median of such ratios with the smallest and the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any, TypeAlias

from tqdm import tqdm

Row: TypeAlias = dict[str, Any]
# The labels of a row, and what measures the rest of it.
Turn: TypeAlias = tuple[Row, Callable[[], Row]]
# Figures, the rows that they come from, and a description of what was measured.
Measured: TypeAlias = tuple[Row, Sequence[Row], Row]


def by_turns(turns: Sequence[Turn], rounds: int) -> list[Row]:
    """Take every turn in order, ``rounds`` times over; one row a turn."""
    rows = []
    with tqdm(total=rounds * len(turns), desc="measuring") as bar:
        for number in range(rounds):
            for labels, measure in turns:
                bar.set_postfix_str(" ".join(map(str, labels.values())))
                rows.append({"round": number, **labels, **measure()})
                bar.update()
    return rows


def select(rows: Iterable[Row], **labels: object) -> list[Row]:
    """The rows with these labels."""
    return [row for row in rows if all(row.get(key) == value for key, value in labels.items())]


def column(rows: Iterable[Row], key: str, **labels: object) -> list[Any]:
    """One value of each row with these labels."""
    return [row[key] for row in select(rows, **labels)]


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    values = list(values)
    return {"median": median(values), "min": min(values), "max": max(values)}


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


def flat(name: str, values: Mapping[str, float]) -> dict[str, float]:
    """A spread without nesting, the median under the name itself."""
    return {name: values["median"], f"{name}_min": values["min"], f"{name}_max": values["max"]}
