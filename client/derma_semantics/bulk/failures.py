"""The images that got no answer, as a CSV beside the results.

with Failures(Path("results.parquet.errors.csv")) as failures:
    failures.add("lesion.jpg", EmptyImage("the image has no bytes"))
"""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType
from typing import IO

from derma_semantics.bulk.sources import printable


class Failures:
    """Written as they come; the file exists only where an image failed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None
        path.unlink(missing_ok=True)  # of an earlier run, which asks these images again

    def add(self, name: str, error: Exception) -> None:
        if self._file is None:
            self._file = self.path.open("w", newline="", encoding="utf-8")
            csv.writer(self._file).writerow(["image", "error", "message"])
        csv.writer(self._file).writerow([printable(name), type(error).__name__, printable(str(error))])
        self._file.flush()

    def __enter__(self) -> Failures:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
