"""The same photograph twice: by its id, or by what it shows.

    found = find_duplicates(examples)
    found.pictures                                      # (('ISIC_0024306', 'copy_of_24306'), ...)
    examples = deduplicate(examples, found)

Two photographs of one lesion are no duplicates, unless they are the same picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from derma_semantics.domain.conditions import CODES
from derma_training.data.pictures import Comparison, compare, hashes
from derma_training.data.table import Example


@dataclass(frozen=True)
class Duplicates:
    """What stands more than once in a table.

    Attributes:
        ids: images that have several rows.
        pictures: images of different ids that show the same picture, a tuple each.
        lesions: lesions that are one, because they share a picture, a tuple each.
        conflicts: sentences that name pictures with two conditions.
        nearest: the two most similar images that count as different, and the bits between them.
    """

    ids: tuple[str, ...]
    pictures: tuple[tuple[str, ...], ...]
    lesions: tuple[tuple[str, ...], ...]
    conflicts: tuple[str, ...]
    nearest: tuple[str, str, int] | None


def find_duplicates(examples: Iterable[Example]) -> Duplicates:
    """Decode every image once and compare all with all.

    Raises:
        ValueError: an image cannot be read or decoded.
    """
    rows_of: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        rows_of[example.name].append(example)
    names = list(rows_of)
    compared = compare(hashes([rows[0] for rows in rows_of.values()]))
    pictures = [tuple(names[i] for i in group) for group in compared.same]
    same = [[row for name in group for row in rows_of[name]] for group in pictures] + list(rows_of.values())
    return Duplicates(
        ids=tuple(name for name, rows in rows_of.items() if len(rows) > 1),
        pictures=tuple(pictures),
        lesions=tuple(_joined_lesions(same)),
        conflicts=tuple(dict.fromkeys(_conflicts(same))),
        nearest=_nearest(compared, names),
    )


def deduplicate(examples: Sequence[Example], found: Duplicates | None = None) -> list[Example]:
    """Keep the first row of every picture; lesions that share a picture become one.

    Args:
        examples: the whole table, from all sources.
        found: what ``find_duplicates`` says of it, where that is known already.

    Raises:
        ValueError: one picture has two conditions, or an image cannot be decoded.
    """
    found = found or find_duplicates(examples)
    if found.conflicts:
        more = f" (and {len(found.conflicts) - 1:,} more)" if len(found.conflicts) > 1 else ""
        raise ValueError(found.conflicts[0] + more)
    first: dict[str, Example] = {}
    for example in identify(examples, found):
        first.setdefault(example.name, example)
    return list(first.values())


def identify(examples: Iterable[Example], found: Duplicates) -> list[Example]:
    """Every row, with one name a picture and one id a lesion."""
    picture = {name: group[0] for group in found.pictures for name in group}
    lesion = {name: group[0] for group in found.lesions for name in group}
    return [
        replace(e, name=picture.get(e.name, e.name), lesion=lesion.get(e.lesion, e.lesion)) for e in examples
    ]


def _nearest(compared: Comparison, names: Sequence[str]) -> tuple[str, str, int] | None:
    gap = compared.nearest
    return (names[gap.one], names[gap.other], gap.bits) if gap else None


def _joined_lesions(same: Iterable[Sequence[Example]]) -> Iterator[tuple[str, ...]]:
    """Lesions that the rows of one picture tie together, also through a third."""
    group_of: dict[str, tuple[str, ...]] = {}
    for rows in same:
        lesions = [name for row in rows for name in group_of.get(row.lesion, (row.lesion,))]
        group = tuple(dict.fromkeys(lesions))
        group_of |= dict.fromkeys(group, group)
    for group in dict.fromkeys(group_of.values()):
        if len(group) > 1:
            yield group


def _conflicts(same: Iterable[Sequence[Example]]) -> Iterator[str]:
    for first, *others in same:
        for row in others:
            if row.condition != first.condition:
                yield f"{_described(first)} and {_described(row)} are one picture with two conditions"


def _described(example: Example) -> str:
    return f"image {example.name} of {example.source} ({CODES[example.condition]})"
