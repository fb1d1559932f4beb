"""One door to every layout of a data set.

examples = read("HAM10000")                         # a folder
examples = read("marmal88/skin_cancer")             # a name on the Hugging Face hub
reading = scan("ISIC2019"); reading.left_out        # what is not in the table
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from derma_training.data import isic
from derma_training.data.files import Reading
from derma_training.data.folders import class_folders, has_class_folders
from derma_training.data.hub import Loader, has_parquet, hub, is_hub_name
from derma_training.data.table import Example


@dataclass(frozen=True)
class Layout:
    """A way in which a folder can hold a data set; ``sign`` is what gives it away."""

    name: str
    sign: str
    read: Callable[[Path, Loader | None], Reading]
    fits: Callable[[Path], bool] | None = None

    def recognises(self, folder: Path) -> bool:
        return self.fits(folder) if self.fits else (folder / self.sign).is_file()


def _files(read: Callable[[Path], Reading]) -> Callable[[Path, Loader | None], Reading]:
    """A reader that needs no loader."""
    return lambda folder, load: read(folder)


# HAM10000's table also lies beside the truth of ISIC 2018, so it is looked for later.
LAYOUTS = (
    Layout("ISIC 2018 Task 3", isic.TRUTH_2018, _files(isic.isic2018)),
    Layout("ISIC 2019", isic.TRUTH_2019, _files(isic.isic2019)),
    Layout("ISIC 2017 Part 3", isic.TRUTH_2017, _files(isic.isic2017)),
    Layout("HAM10000", isic.FACTS_HAM, _files(isic.ham10000)),
    Layout(
        "marmal88/skin_cancer", "data/*.parquet", lambda folder, load: hub(str(folder), load), has_parquet
    ),
    Layout("a folder per class", "folders named MEL, NV, ...", _files(class_folders), has_class_folders),
)


def read(source: str | Path, *, load: Loader | None = None) -> list[Example]:
    """The table of a folder or of a data set on the hub; warns of images that are left out.

    Args:
        source: a folder in one of ``LAYOUTS``, or owner/name.
        load: instead of ``datasets.load_dataset``.

    Raises:
        ValueError: no layout fits, or a file, column or image is missing.
    """
    reading = scan(source, load=load)
    if reading.left_out:
        warnings.warn(f"{source}: {left_out_sentence(reading.left_out)}", stacklevel=2)
    return reading.examples


def scan(source: str | Path, *, load: Loader | None = None) -> Reading:
    """The same as ``read``, with the count of images that are left out instead of the warning."""
    folder = Path(source)
    if not folder.is_dir():
        if is_hub_name(str(source)):
            return hub(str(source), load)
        raise ValueError(f"{source} is neither a folder nor a name on the hub (owner/name)")
    for layout in LAYOUTS:
        if layout.recognises(folder):
            return layout.read(folder, load)
    expected = "; ".join(f"{layout.sign} ({layout.name})" for layout in LAYOUTS)
    raise ValueError(f"{folder} is in no known layout: looked for {expected}")


def left_out_sentence(left_out: dict[str, int]) -> str:
    """For a person: 'images of no condition of ours, left out: 628 SCC'."""
    counts = ", ".join(f"{count:,} {label}" for label, count in left_out.items())
    return f"images of no condition of ours, left out: {counts}"
