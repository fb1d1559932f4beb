"""Reader of ``marmal88/skin_cancer`` and of data sets with its columns, through ``datasets``.

    reading = hub("marmal88/skin_cancer")               # downloads 3.7 GB, once
    reading = hub("skin_cancer")                        # data/train-00000-of-00005-*.parquet, ...
    reading.examples[0].split                           # 'train'

The images stay encoded in the library's memory-mapped cache until they are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from derma_semantics.domain.conditions import CONDITIONS
from derma_semantics.domain.regular import read_regular
from derma_semantics.evaluation.tables import known, number
from derma_training.data.files import Reading, condition_of
from derma_training.data.table import Example

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
REQUIRED = ("image", "image_id", "lesion_id", "dx")
OPTIONAL = ("age", "sex", "localization")

Loader = Callable[[str], Mapping[str, Any]]


def is_hub_name(source: str) -> bool:
    """Whether this reads as owner/name."""
    return HUB_NAME.fullmatch(source) is not None


def has_parquet(folder: Path) -> bool:
    """Whether a folder is laid out as the hub lays out a data set."""
    return any(folder.glob("data/*.parquet")) or any(folder.glob("*.parquet"))


def hub(source: str, load: Loader | None = None) -> Reading:
    """Read every split, in order.

    Args:
        source: owner/name on the hub, or a folder.
        load: instead of ``datasets.load_dataset``.

    Raises:
        ValueError: the data set cannot be had, lacks a column, or has an unknown ``dx``.
    """
    name = Path(source).resolve().name if Path(source).is_dir() else source
    splits = _load(source, load)
    return Reading([example for split, rows in splits.items() for example in _examples(name, split, rows)])


def _load(source: str, load: Loader | None) -> Mapping[str, Any]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        return (load or load_dataset)(source)
    except (DatasetsError, OSError) as exc:
        raise ValueError(f"the data set {source} cannot be loaded: {exc}") from exc


def _examples(source: str, split: str, rows: Any) -> list[Example]:
    from datasets import Image

    if lacking := [column for column in REQUIRED if column not in rows.column_names]:
        raise ValueError(
            f"{source}, split {split}, lacks the column {lacking[0]}: it has {rows.column_names}"
        )
    encoded = rows.select_columns(["image"]).cast_column("image", Image(decode=False))
    facts = rows.select_columns([c for c in (*REQUIRED[1:], *OPTIONAL) if c in rows.column_names])
    return [
        _example(row, source, split, partial(_encoded_image, encoded, position))
        for position, row in enumerate(facts)
    ]


def _example(row: Mapping[str, Any], source: str, split: str, read: Callable[[], bytes]) -> Example:
    where = f"{source}: image {row['image_id']}"
    condition = condition_of(row["dx"])
    if condition is None:
        expected = ", ".join(c.marmal88_dx for c in CONDITIONS)
        raise ValueError(f"{where} has the unknown dx {row['dx']!r}: expected {expected}")
    return Example(
        name=row["image_id"],
        lesion=row["lesion_id"],
        condition=condition,
        source=source,
        read=read,
        age=number(row.get("age"), f"{where}: age"),
        sex=known(row.get("sex")),
        site=known(row.get("localization")),
        split=split,
    )


def _encoded_image(rows: Any, position: int) -> bytes:
    image = rows[position]["image"]
    data: bytes = image["bytes"] if image["bytes"] is not None else read_regular(image["path"])
    return data
