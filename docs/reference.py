"""Write the client library's reference, as HTML, from its docstrings.

python docs/reference.py .run/docs
"""

from __future__ import annotations

import sys
from pathlib import Path

import pdoc

import derma_semantics

# Beside the package itself, whose page shows every public name.
MODULES = ("domain.errors", "domain.contract", "wire.transport", "saliency", "bulk", "imaging.dicom")


def write(folder: Path) -> None:
    for name in derma_semantics.__all__:
        getattr(derma_semantics, name)  # imported by first use, and pdoc does not use them
    pdoc.render.configure(docformat="google", show_source=False, search=False, footer_text="Derma-Semantics")
    names = [derma_semantics.__name__, *(f"{derma_semantics.__name__}.{module}" for module in MODULES)]
    pdoc.pdoc(*names, output_directory=folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
