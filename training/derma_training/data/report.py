"""The data report: conditions, duplicates, overlaps, and what a split by lesion would be.

    found = report("HAM10000")
    print(summary(found))
    found.overlaps                                      # images of one given part that another knows

Nothing is refused here: what would stop a training run is listed under ``problems``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from derma_semantics.domain.conditions import CODES
from derma_training.data.duplicates import Duplicates, deduplicate, find_duplicates, identify
from derma_training.data.files import Reading
from derma_training.data.pictures import BITS, THRESHOLD
from derma_training.data.readers import left_out_sentence, scan
from derma_training.data.split import Parts, split_by_lesion
from derma_training.data.table import Example

Counts = dict[str, int]
SHOWN = 5


@dataclass(frozen=True)
class Overlap:
    """How many rows of one given part stand in another as well, by image and by lesion."""

    part: str
    other: str
    rows: int
    same_image: int
    same_lesion: int


@dataclass(frozen=True)
class DataReport:
    """Ready for ``json.dumps(asdict(found))``.

    Attributes:
        rows: of all sources together.
        images, pictures, lesions: how many are different; pictures by what they show.
        conditions: rows a condition, and so on by source and by the part that the source gives.
        known: how many rows have an age, a sex, a site.
        images_per_lesion: how many lesions have one image, two images, ...
        overlaps: between the parts that the source gives.
        problems: what a training run refuses.
        parts: images a condition in the parts of ``split_by_lesion``; empty where it refuses.
    """

    rows: int
    images: int
    pictures: int
    lesions: int
    left_out: Counts
    conditions: Counts
    sources: Counts
    given_parts: Counts
    known: Counts
    images_per_lesion: dict[int, int]
    duplicates: Duplicates
    overlaps: list[Overlap]
    problems: list[str]
    seed: int
    parts: dict[str, Counts]


def report(*sources: str | Path, seed: int = 0, scan: Callable[[str | Path], Reading] = scan) -> DataReport:
    """Read the sources as one table and report on it.

    Args:
        sources: folders, or names on the hub.
        seed: of the split.
        scan: instead of ``readers.scan``.

    Raises:
        ValueError: a source cannot be read, or an image cannot be decoded.
    """
    readings = [scan(source) for source in sources]
    examples = [example for reading in readings for example in reading.examples]
    found = find_duplicates(examples)
    identified = identify(examples, found)
    parts, problems = _parts(examples, found, seed)
    return DataReport(
        rows=len(examples),
        images=len({e.name for e in examples}),
        pictures=len({e.name for e in identified}),
        lesions=len({e.lesion for e in identified}),
        left_out=dict(sum((Counter(reading.left_out) for reading in readings), Counter())),
        conditions=class_counts(examples),
        sources=dict(Counter(e.source for e in examples)),
        given_parts=dict(Counter(e.split for e in examples if e.split)),
        known={key: sum(getattr(e, key) is not None for e in examples) for key in ("age", "sex", "site")},
        images_per_lesion=_images_per_lesion(identified),
        duplicates=found,
        overlaps=_overlaps(identified),
        problems=problems,
        seed=seed,
        parts={name: class_counts(part) for name, part in parts if part} if parts else {},
    )


def summary(found: DataReport) -> str:
    """Counts, duplicates, overlaps, problems, and the table of the parts."""
    return "\n".join([*_counts(found), *_duplicates(found), *_given(found), *_split(found)])


def class_counts(examples: Iterable[Example]) -> Counts:
    """Images a condition, in the order of ``CODES``, those without any included."""
    counts = Counter(example.condition for example in examples)
    return {code: counts[index] for index, code in enumerate(CODES)}


def _parts(examples: Sequence[Example], found: Duplicates, seed: int) -> tuple[Parts | None, list[str]]:
    try:
        return split_by_lesion(deduplicate(examples, found), seed=seed), []
    except ValueError as exc:
        return None, list(found.conflicts) or [str(exc)]


def _images_per_lesion(examples: Iterable[Example]) -> dict[int, int]:
    images = Counter(lesion for _, lesion in {(e.name, e.lesion) for e in examples})
    return dict(sorted(Counter(images.values()).items()))


def _overlaps(examples: Sequence[Example]) -> list[Overlap]:
    given: dict[str, list[Example]] = {}
    for example in examples:
        if example.split:
            given.setdefault(example.split, []).append(example)
    return [_overlap(part, other, given) for other, part in combinations(given, 2)]


def _overlap(part: str, other: str, given: dict[str, list[Example]]) -> Overlap:
    images, lesions = {e.name for e in given[other]}, {e.lesion for e in given[other]}
    rows = given[part]
    return Overlap(
        part, other, len(rows), sum(e.name in images for e in rows), sum(e.lesion in lesions for e in rows)
    )


def _counts(found: DataReport) -> Iterator[str]:
    yield _line("sources", _listed(found.sources))
    yield _line("rows", f"{found.rows:,}")
    yield _line("images", f"{found.images:,} different ids, {found.pictures:,} different pictures")
    yield _line("lesions", f"{found.lesions:,}")
    per_lesion = (f"{lesions:,} with {images}" for images, lesions in found.images_per_lesion.items())
    yield _line("images a lesion", ", ".join(per_lesion))
    if found.left_out:
        yield _line("left out", left_out_sentence(found.left_out))
    known = (f"{name} of {_percent(count, found.rows)}" for name, count in found.known.items())
    yield _line("known", ", ".join(known))


def _duplicates(found: DataReport) -> Iterator[str]:
    same = found.duplicates
    yield _line("duplicate ids", _some(same.ids))
    yield _line("same picture", _some([" = ".join(group) for group in same.pictures]))
    yield _line("joined lesions", _some([" = ".join(group) for group in same.lesions]))
    if same.nearest:
        one, other, bits = same.nearest
        yield _line("next nearest", f"{one} and {other}: {bits} of {BITS} bits (the same: up to {THRESHOLD})")


def _given(found: DataReport) -> Iterator[str]:
    if found.given_parts:
        yield _line("given parts", _listed(found.given_parts))
    for overlap in found.overlaps:
        yield _line("overlap", _shared(overlap))
    for problem in found.problems:
        yield _line("problem", problem)


def _split(found: DataReport) -> Iterator[str]:
    columns = {"rows": found.conditions, **found.parts}
    yield ""
    yield f"images a condition; parts by lesion, without duplicates, seed {found.seed}"
    yield _row("", {name: name for name in columns})
    for code in CODES:
        yield _row(code, {name: f"{counts[code]:,}" for name, counts in columns.items()})
    yield _row("all", {name: f"{sum(counts.values()):,}" for name, counts in columns.items()})


def _shared(overlap: Overlap) -> str:
    shares = (
        f"{count:,} ({_percent(count, overlap.rows)}) share {what}"
        for what, count in (("an image", overlap.same_image), ("a lesion", overlap.same_lesion))
    )
    return f"of {overlap.rows:,} rows in {overlap.part}, {' and '.join(shares)} with {overlap.other}"


def _row(code: str, cells: Mapping[str, str]) -> str:
    return f"{code:<8}" + "".join(f"{cell:>{max(len(name), 6) + 2}}" for name, cell in cells.items())


def _line(name: str, value: str) -> str:
    return f"{name:<17}{value}"


def _some(names: tuple[str, ...] | list[str]) -> str:
    if not names:
        return "none"
    return f"{len(names):,}, e.g. {'; '.join(names[:SHOWN])}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %" if total else "0 %"
