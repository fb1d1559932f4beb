"""Readers of the folders that the ISIC challenges and HAM10000 publish.

    reading = isic2018(Path("ISIC2018"))
    reading.examples[0].lesion                          # 'HAM_0000550'
    isic2019(Path("ISIC2019")).left_out                 # {'SCC': 628}

Every reader keeps the order of the data set's own table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from derma_semantics.domain.conditions import CODES, CONDITIONS
from derma_semantics.domain.regular import read_regular
from derma_semantics.evaluation.tables import (
    Facts,
    facts_of,
    read_facts,
    read_isic2017,
    read_one_hot,
    read_rows,
)
from derma_training.data.files import Reading, condition_of, find_images
from derma_training.data.table import Example

TRUTH_2017 = "ISIC-2017_Training_Part3_GroundTruth.csv"
FACTS_2017 = "ISIC-2017_Training_Data_metadata.csv"
IMAGES_2017 = ("ISIC-2017_Training_Data", "images")

TRUTH_2018 = "ISIC2018_Task3_Training_GroundTruth.csv"
GROUPS_2018 = "ISIC2018_Task3_Training_LesionGroupings.csv"
IMAGES_2018 = ("ISIC2018_Task3_Training_Input",)

TRUTH_2019 = "ISIC_2019_Training_GroundTruth.csv"
FACTS_2019 = "ISIC_2019_Training_Metadata.csv"
IMAGES_2019 = ("ISIC_2019_Training_Input", "ISIC_2019_Training_Input/ISIC_2019_Training_Input", "images")
CODES_2019 = {condition.isic2019: condition.code for condition in CONDITIONS}
# Squamous cell carcinoma and "none of the others" are no condition of ours.
OTHERS_2019 = ("SCC", "UNK")

FACTS_HAM = "HAM10000_metadata.csv"
IMAGES_HAM = ("HAM10000_images_part_1", "HAM10000_images_part_2")


def isic2017(folder: Path) -> Reading:
    """ISIC 2017 Part 3: melanoma, seborrheic keratosis, or neither; every image is a lesion of its own."""
    labelled = read_isic2017(folder / TRUTH_2017)
    facts = _facts(folder / FACTS_2017)
    paths = find_images(folder, IMAGES_2017, [name for name, _ in labelled])
    return Reading(
        [
            _example(name, name, code, "ISIC 2017", path, facts.get(name))
            for (name, code), path in zip(labelled, paths)
        ]
    )


def isic2018(folder: Path) -> Reading:
    """ISIC 2018 Task 3, with HAM10000's table of lesions or that of the challenge.

    Raises:
        ValueError: a file is missing, a row has not exactly one condition, or an image has no lesion.
    """
    facts = _facts_2018(folder)
    labelled = read_one_hot(folder / TRUTH_2018, CODES)
    lesions = {name: fact.lesion for name, fact in facts.items() if fact.lesion}
    if orphans := [name for name, _ in labelled if name not in lesions]:
        raise ValueError(f"image {orphans[0]} has no lesion id; a split by lesion needs one")
    paths = find_images(folder, IMAGES_2018, [name for name, _ in labelled])
    return Reading(
        [
            _example(name, lesions[name], code, "ISIC 2018", path, facts[name])
            for (name, code), path in zip(labelled, paths)
        ]
    )


def isic2019(folder: Path) -> Reading:
    """ISIC 2019; images of squamous cell carcinoma and of unknown kind are counted and left out."""
    facts = _facts(folder / FACTS_2019, "lesion_id")
    labelled = read_one_hot(folder / TRUTH_2019, (*CODES_2019, *OTHERS_2019))
    kept = [(name, CODES_2019[label]) for name, label in labelled if label in CODES_2019]
    left_out = Counter(label for _, label in labelled if label in OTHERS_2019)
    paths = find_images(folder, IMAGES_2019, [name for name, _ in kept])
    examples = []
    for (file, code), path in zip(kept, paths):
        # The same photograph as the one without the suffix in the archive and in other challenges.
        name = file.removesuffix("_downsampled")
        about = facts.get(file, Facts())
        examples.append(_example(name, about.lesion or name, code, "ISIC 2019", path, about))
    return Reading(examples, dict(left_out))


def ham10000(folder: Path) -> Reading:
    """The HAM10000 download: one table and two folders of images.

    Raises:
        ValueError: a file is missing, or a ``dx`` is none of the seven.
    """
    rows = list(read_rows(folder / FACTS_HAM, ("lesion_id", "image_id", "dx")))
    paths = find_images(folder, IMAGES_HAM, [row["image_id"] for _, row in rows])
    return Reading([_example_ham(where, row, path) for (where, row), path in zip(rows, paths)])


def _example(
    name: str, lesion: str, code: str, source: str, path: Path, facts: Facts | None = None
) -> Example:
    facts = facts or Facts()
    return Example(
        name=name,
        lesion=lesion,
        condition=CODES.index(code),
        source=source,
        read=partial(read_regular, path),
        age=facts.age,
        sex=facts.sex,
        site=facts.site,
    )


def _example_ham(where: str, row: Mapping[str, str], path: Path) -> Example:
    condition = condition_of(row["dx"])
    if condition is None:
        raise ValueError(f"{where}: image {row['image_id']} has the unknown dx {row['dx']!r}")
    code = CODES[condition]
    return _example(row["image_id"], row["lesion_id"], code, "HAM10000", path, facts_of(row, where))


def _facts_2018(folder: Path) -> dict[str, Facts]:
    """HAM10000's rows where they are what names the lesions, else the challenge's."""
    for name in (FACTS_HAM, GROUPS_2018):
        if (folder / name).is_file():
            return read_facts(folder / name, "lesion_id")
    raise ValueError(f"{folder} has no lesion table: expected {FACTS_HAM} or {GROUPS_2018}")


def _facts(path: Path, *needed: str) -> dict[str, Facts]:
    """Facts by image; nothing where the data set came without the table."""
    return read_facts(path, *needed) if path.is_file() else {}
