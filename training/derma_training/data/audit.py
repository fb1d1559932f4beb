"""What a data set holds, what stands twice in it, and what a split of it would be.

    report = audit("HAM10000")
    print(summary(report))
    report.overlaps                                     # images of one given part that another knows

Nothing is refused here: what would stop a training run is listed under ``problems``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from derma_training.data.balance import MOST_NEVI, NEVI, class_counts, downsample
from derma_training.data.duplicates import Duplicates, deduplicate, find_duplicates, identify
from derma_training.data.files import Reading
from derma_training.data.readers import scan
from derma_training.data.split import Parts, split_by_lesion
from derma_training.data.table import Example

Counts = dict[str, int]


@dataclass(frozen=True)
class Overlap:
    """How many rows of one given part stand in another as well, by image and by lesion."""

    part: str
    other: str
    rows: int
    same_image: int
    same_lesion: int


@dataclass(frozen=True)
class Audit:
    """The report, ready for ``json.dumps(asdict(report))``.

    Attributes:
        rows: of all sources together.
        images, pictures, lesions: how many are different; pictures by what they show.
        conditions: rows a condition, and so on by source and by the part that the source gives.
        known: how many rows have an age, a sex, a site.
        images_per_lesion: how many lesions have one image, two images, ...
        overlaps: between the parts that the source gives.
        problems: what a training run refuses.
        parts: images a condition in the parts of ``split_by_lesion``; empty where it refuses.
        balanced: images a condition in the training part after down-sampling.
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
    most_nevi: int
    parts: dict[str, Counts]
    balanced: Counts


def audit(
    *sources: str | Path,
    most_nevi: int = MOST_NEVI,
    seed: int = 0,
    scan: Callable[[str | Path], Reading] = scan,
) -> Audit:
    """Read the sources as one table and report on it.

    Args:
        sources: folders, or names on the hub.
        most_nevi: for the down-sampling.
        seed: of the split and of the down-sampling.
        scan: instead of ``readers.scan``.

    Raises:
        ValueError: a source cannot be read, or an image cannot be decoded.
    """
    readings = [scan(source) for source in sources]
    examples = [example for reading in readings for example in reading.examples]
    found = find_duplicates(examples)
    identified = identify(examples, found)
    parts, problems = _parts(examples, found, seed)
    return Audit(
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
        most_nevi=most_nevi,
        parts={name: class_counts(part) for name, part in parts if part} if parts else {},
        balanced=class_counts(downsample(parts.train, NEVI, most_nevi, seed=seed)) if parts else {},
    )


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
