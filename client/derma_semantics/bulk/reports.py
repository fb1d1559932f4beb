"""A DICOM structured report beside the answer to a DICOM image.

if failed := unreported(Path("lesion.dcm"), answer, Path("reports")):
    print(failed)       # the answer stands all the same
"""

from __future__ import annotations

from pathlib import Path

from derma_semantics.domain.diagnosis import Diagnosis
from derma_semantics.domain.errors import DermaError
from derma_semantics.domain.formats import DICOM
from derma_semantics.domain.regular import read_regular
from derma_semantics.imaging.dicom import write_report

PREAMBLE = 132  # bytes, with the signature


class NotReported(Exception):
    """An image was answered, but its report was not written; says why."""


def unreported(path: Path, answer: Diagnosis, folder: Path) -> NotReported | None:
    """Write the report of a DICOM image; returns why that was impossible. Other images have none."""
    try:
        if DICOM.begins(read_regular(path, PREAMBLE)):
            write_report(path, answer, folder)
    except (DermaError, OSError) as exc:
        return NotReported(f"answered, but no report was written: {exc}")
    return None
