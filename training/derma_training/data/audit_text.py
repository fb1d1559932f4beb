"""An audit as text for a terminal.

print(summary(audit("HAM10000")))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from derma_semantics.domain.conditions import CODES
from derma_training.data.audit import Audit, Overlap
from derma_training.data.balance import NEVI
from derma_training.data.pictures import BITS, THRESHOLD
from derma_training.data.readers import left_out_sentence

SHOWN = 5


def summary(report: Audit) -> str:
    """Counts, duplicates, overlaps, problems, and the table of the parts."""
    return "\n".join([*_counts(report), *_duplicates(report), *_given(report), *_split(report)])


def _counts(report: Audit) -> Iterator[str]:
    yield _line("sources", _listed(report.sources))
    yield _line("rows", f"{report.rows:,}")
    yield _line("images", f"{report.images:,} different ids, {report.pictures:,} different pictures")
    yield _line("lesions", f"{report.lesions:,}")
    per_lesion = (f"{lesions:,} with {images}" for images, lesions in report.images_per_lesion.items())
    yield _line("images a lesion", ", ".join(per_lesion))
    if report.left_out:
        yield _line("left out", left_out_sentence(report.left_out))
    known = (f"{name} of {_percent(count, report.rows)}" for name, count in report.known.items())
    yield _line("known", ", ".join(known))


def _duplicates(report: Audit) -> Iterator[str]:
    found = report.duplicates
    yield _line("duplicate ids", _some(found.ids))
    yield _line("same picture", _some([" = ".join(group) for group in found.pictures]))
    yield _line("joined lesions", _some([" = ".join(group) for group in found.lesions]))
    if found.nearest:
        one, other, bits = found.nearest
        yield _line("next nearest", f"{one} and {other}: {bits} of {BITS} bits (the same: up to {THRESHOLD})")


def _given(report: Audit) -> Iterator[str]:
    if report.given_parts:
        yield _line("given parts", _listed(report.given_parts))
    for overlap in report.overlaps:
        yield _line("overlap", _overlap(overlap))
    for problem in report.problems:
        yield _line("problem", problem)


def _split(report: Audit) -> Iterator[str]:
    last = f"train, {NEVI} <= {report.most_nevi:,}"
    columns = {"rows": report.conditions, **report.parts, **({last: report.balanced} if report.parts else {})}
    yield ""
    yield f"images a condition; parts by lesion, without duplicates, seed {report.seed}"
    yield _row("", {name: name for name in columns})
    for code in CODES:
        yield _row(code, {name: f"{counts[code]:,}" for name, counts in columns.items()})
    yield _row("all", {name: f"{sum(counts.values()):,}" for name, counts in columns.items()})


def _overlap(overlap: Overlap) -> str:
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
