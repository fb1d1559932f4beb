"""A DICOM structured report beside the answer to a DICOM image.

answer = reported(Path("lesion.dcm"), answer, Path("reports"))
"""

from __future__ import annotations

from pathlib import Path

from derma_semantics.domain.diagnosis import Diagnosis
from derma_semantics.domain.errors import DermaError

# What a DICOM file is known by: its magic letters follow 128 free bytes.
PREAMBLE = 132


def reported(path: Path, answer: Diagnosis, folder: Path) -> Diagnosis | DermaError | OSError:
    """The answer, its report written; or why that was impossible. Other images have none.

    Raises:
        ImportError: highdicom is missing.
    """
    from derma_semantics.imaging.dicom import is_dicom, write_report

    try:
        with path.open("rb") as file:
            dicom = is_dicom(file.read(PREAMBLE))
        if dicom:
            write_report(path, answer, folder)
    except (DermaError, OSError) as exc:
        return exc
    return answer
