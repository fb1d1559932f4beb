"""Record which image trained a bundle and which was held out: ``split.json``.

    write_split(folder, parts)
    test = part_of(bundle, read(data), "test")
    parts = bundle_parts(bundle, read(data))

The file maps each part of ``derma_training.data.Parts`` to the names of its images.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from derma_training.bundle.bundle import Bundle
from derma_training.bundle.files import write_json
from derma_training.data import Example, Parts, pick

SPLIT = "split.json"
TRAIN = "train"
OTHER = "other"


def write_split(folder: Path, parts: Parts, trained_before: Iterable[str] = ()) -> None:
    """Write the names by part.

    Args:
        trained_before: images that trained the weights that this run starts from.
    """
    names = {part: {example.name for example in examples} for part, examples in parts}
    names[TRAIN] |= set(trained_before)
    write_json(folder / SPLIT, {part: sorted(found) for part, found in names.items() if found})


def names_by_part(bundle: Bundle) -> dict[str, list[str]]:
    """Image names by part; empty where the bundle has no ``split.json``."""
    path = bundle.path / SPLIT
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def split_names(bundle: Bundle) -> set[str]:
    """Every image of the bundle's split."""
    return {name for names in names_by_part(bundle).values() for name in names}


def trained_names(bundle: Bundle) -> set[str]:
    """Every image that trained any of the bundle's weights.

    Raises:
        ValueError: the bundle does not name them.
    """
    names = names_by_part(bundle).get(TRAIN)
    if names is None:
        raise ValueError(f"{bundle.path} does not name the images that trained it in {SPLIT}")
    return set(names)


def part_of(bundle: Bundle, examples: Sequence[Example], part: str) -> list[Example]:
    """The examples that the bundle keeps aside as this part; with ``all``, every example.

    Raises:
        ValueError: the bundle names no such part, or the data lacks some of its images.
    """
    if part == "all":
        return list(examples)
    names = names_by_part(bundle).get(part)
    if not names:
        raise ValueError(f"{bundle.path} has no images of part {part!r} in {SPLIT}")
    return pick(examples, names)


def bundle_parts(bundle: Bundle, examples: Sequence[Example]) -> Parts:
    """The parts that a bundle was made with; every image it did not hold out trained it.

    The part ``other`` may be missing from ``examples``, with the collections that it is of.
    """
    held_out = names_by_part(bundle)
    held_out.pop(TRAIN, None)
    other = set(held_out.pop(OTHER, ()))
    parts = {name: pick(examples, names) for name, names in held_out.items()}
    kept = other.union(*held_out.values())
    train = [example for example in examples if example.name not in kept]
    return Parts(train, **parts, other=[example for example in examples if example.name in other])
