"""Reader of a plain folder that holds a folder of images per class.

    photos/melanoma/a.jpg  photos/nv/b.png  photos/BCC/c.jpg
    reading = class_folders(Path("photos"))
    reading.examples[0].name                            # 'a'

A class is named by its ISIC code, its name, or the ``dx`` of HAM10000 or marmal88, in any case.
Nothing says which photographs show one lesion: each is taken for a lesion of its own.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.regular import read_regular
from derma_semantics.imaging.folders import images_in
from derma_training.data.files import Reading, condition_of
from derma_training.data.table import Example


def has_class_folders(folder: Path) -> bool:
    """Whether a condition names at least one of the folders in it."""
    return any(condition_of(path.name) is not None for path in _folders(folder))


def class_folders(folder: Path) -> Reading:
    """Read every class folder.

    Raises:
        ValueError: a folder with images names no condition, or there are no images.
    """
    examples = []
    for path in _folders(folder):
        if not (images := images_in(path)):
            continue
        condition = condition_of(path.name)
        if condition is None:
            raise ValueError(
                f"{path} has images, but its name is no condition: expected one of {', '.join(CODES)}"
            )
        examples += [_example(image, condition, folder.name) for image in images]
    if not examples:
        raise ValueError(f"{folder} has no images in its class folders")
    return Reading(examples)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _example(image: Path, condition: int, source: str) -> Example:
    return Example(image.stem, image.stem, condition, source, partial(read_regular, image))
