"""Beside the results, as CSV: the images that got no answer, and the files that are no images.

with Failures(Path("results.parquet.errors.csv")) as failures:
    failures.add("lesion.jpg", EmptyImage("the image has no bytes"))
with Skipped(Path("results.parquet.skipped.csv")) as skipped:
    skipped.add("notes.txt")
    skipped.suffixes            # Counter({".txt": 1})
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, TypeVar

from derma_semantics.bulk.cells import cell
from derma_semantics.bulk.sources import printable
from derma_semantics.imaging.folders import suffix_of

Self = TypeVar("Self", bound="Rows")


class Rows:
    """Written as they come; the file exists only where there is a row."""

    columns: ClassVar[tuple[str, ...]]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def write(self, *texts: str) -> None:
        if self._file is None:
            self._file = self.path.open("w", newline="", encoding="utf-8")
            csv.writer(self._file).writerow(self.columns)
        csv.writer(self._file).writerow([cell(printable(text)) for text in texts])
        self._file.flush()

    def __enter__(self: Self) -> Self:
        self.path.unlink(missing_ok=True)  # of an earlier run, which asks these images again
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()


class Failures(Rows):
    """Images without an answer, or without their report, and why."""

    columns = ("image", "error", "message")

    def add(self, name: str, error: Exception) -> None:
        self.write(name, type(error).__name__, str(error))


class Skipped(Rows):
    """Files of folders that are no images; ``suffixes`` counts them."""

    columns = ("file",)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.suffixes: Counter[str] = Counter()

    def add(self, name: str) -> None:
        self.suffixes[suffix_of(name)] += 1
        self.write(name)
