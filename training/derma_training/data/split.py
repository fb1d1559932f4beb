"""Four parts, disjoint by lesion and by image.

    parts = split_by_lesion(examples, seed=0)
    fifth = split_by_lesion(examples, seed=0, fold=4).test
    check_disjoint(Parts(train=mine, test=theirs))

Photographs of one lesion never stand in two parts. Pictures that are the same under two
names are found before the split, by ``deduplicate``.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from derma_semantics.domain.conditions import CODES
from derma_training.data.table import Example


@dataclass(frozen=True)
class Shares:
    """Shares of each condition's lesions; the rest is for training."""

    test: float = 0.2
    calibration: float = 0.1
    validation: float = 0.1

    def __post_init__(self) -> None:
        if min(self.test, self.calibration, self.validation) < 0:
            raise ValueError(f"{self}: no share may be negative")
        if self.test + self.calibration + self.validation >= 1:
            raise ValueError(f"{self}: the shares must leave something for training")


@dataclass(frozen=True)
class Parts:
    """What trains, picks the epoch, calibrates, measures, and measures on other collections."""

    train: list[Example] = field(default_factory=list)
    validation: list[Example] = field(default_factory=list)
    calibration: list[Example] = field(default_factory=list)
    test: list[Example] = field(default_factory=list)
    other: list[Example] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[str, list[Example]]]:
        """The parts with their names."""
        return iter(vars(self).items())


def split_by_lesion(
    examples: Iterable[Example], *, seed: int, shares: Shares | None = None, fold: int = 0, target: str = ""
) -> Parts:
    """Stratified split: of each condition's lesions, shuffled, first test, then calibration, then validation.

    With a ``target``, these parts hold lesions of that source alone, whatever else is given: of
    other sources the test share is the part ``other``, and the rest trains.

    Args:
        examples: without duplicates, as ``deduplicate`` leaves them.
        seed: of the shuffle.
        shares: by default a fifth for test, a tenth each for calibration and validation.
        fold: which stretch of the shuffled lesions is for test. With a test share of a fifth,
            the folds 0 to 4 test every lesion exactly once (of conditions with five or more).
        target: the source whose photographs the model is for; by default all of them.

    Raises:
        ValueError: a lesion has two conditions, no image is of the target, or an image has two
            lesions that fall apart.
    """
    examples, shares = list(examples), shares or Shares()
    if not 0 <= fold * shares.test < 1:
        raise ValueError(f"fold {fold} with a test share of {shares.test} lies outside the data")
    ours = {example.lesion for example in examples if target in ("", example.source)}
    if not ours:
        sources = ", ".join(sorted({example.source for example in examples}))
        raise ValueError(f"no image is of the target {target!r}: the data has {sources or 'no images'}")
    rng = random.Random(seed)
    part_of = _parts_of((e for e in examples if e.lesion in ours), shares, fold, rng)
    others = _parts_of((e for e in examples if e.lesion not in ours), Shares(shares.test, 0, 0), fold, rng)
    part_of |= {lesion: "other" if part == "test" else part for lesion, part in others.items()}
    parts = Parts()
    for example in examples:
        getattr(parts, part_of[example.lesion]).append(example)
    check_disjoint(parts)
    return parts


def check_disjoint(parts: Parts) -> None:
    """Refuse parts that share anything.

    Raises:
        ValueError: an image or a lesion stands in two parts; names it.
    """
    for what, key in (("image", "name"), ("lesion", "lesion")):
        sets = {part: {getattr(e, key) for e in examples} for part, examples in parts}
        for (one, in_one), (other, in_other) in combinations(sets.items(), 2):
            if shared := sorted(in_one & in_other):
                raise ValueError(_overlap(what, shared, one, other))


def _overlap(what: str, shared: Sequence[str], one: str, other: str) -> str:
    more = f", as do {len(shared) - 1:,} more" if len(shared) > 1 else ""
    return f"{what} {shared[0]} stands in {one} and in {other}{more}: nothing measured would hold"


def _parts_of(examples: Iterable[Example], shares: Shares, fold: int, rng: random.Random) -> dict[str, str]:
    """Part by lesion, condition by condition."""
    part_of: dict[str, str] = {}
    for _, lesions in sorted(_lesions_by_condition(examples).items()):
        rng.shuffle(lesions)
        part_of |= _assign(lesions, shares, fold)
    return part_of


def _lesions_by_condition(examples: Iterable[Example]) -> dict[int, list[str]]:
    condition_of: dict[str, int] = {}
    for example in examples:
        known = condition_of.setdefault(example.lesion, example.condition)
        if known != example.condition:
            both = f"{CODES[known]} and {CODES[example.condition]}"
            raise ValueError(f"lesion {example.lesion} has two conditions ({both}); it cannot be split")
    lesions: dict[int, list[str]] = defaultdict(list)
    for lesion in sorted(condition_of):
        lesions[condition_of[lesion]].append(lesion)
    return lesions


def _assign(lesions: Sequence[str], shares: Shares, fold: int) -> dict[str, str]:
    """Part by lesion; the fold's test lesions are rotated to the front."""
    count = len(lesions)
    # Rounding the two ends, not the length, lets consecutive folds meet without gap or overlap.
    start = round(fold * shares.test * count)
    test = round((fold + 1) * shares.test * count) - start
    calibration = round((shares.test + shares.calibration) * count)
    if count >= 3:
        test = max(test, int(shares.test > 0))
        calibration = max(calibration, test + int(shares.calibration > 0))
    validation = round((shares.test + shares.calibration + shares.validation) * count)
    rotated = [*lesions[start:], *lesions[:start]]
    return {lesion: _part(i, test, calibration, validation) for i, lesion in enumerate(rotated)}


def _part(position: int, test: int, calibration: int, validation: int) -> str:
    if position < test:
        return "test"
    if position < calibration:
        return "calibration"
    return "validation" if position < validation else "train"
