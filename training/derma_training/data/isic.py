"""Readers of the folders that the ISIC challenges and HAM10000 publish.

    reading = isic2018(Path("ISIC2018"))
    reading.examples[0].lesion                          # 'HAM_0000550'
    isic2019(Path("ISIC2019")).left_out                 # {'SCC': 628}

Every reader keeps the order of the data set's own table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from derma_semantics.domain.conditions import CODES
from derma_training.data.files import (
    Reading,
    Row,
    condition_of,
    find_images,
    number,
    one_hot,
    read_csv,
    text,
)
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
# Squamous cell carcinoma and "none of the others" are no condition of ours; AK is their name for AKIEC.
CODES_2019 = {"AK": "AKIEC", **{code: code for code in CODES if code != "AKIEC"}, "SCC": None, "UNK": None}

FACTS_HAM = "HAM10000_metadata.csv"
IMAGES_HAM = ("HAM10000_images_part_1", "HAM10000_images_part_2")


def isic2017(folder: Path) -> Reading:
    """ISIC 2017 Part 3: melanoma, seborrheic keratosis, or neither; every image is a lesion of its own."""
    rows = read_csv(folder / TRUTH_2017, "image_id", "melanoma", "seborrheic_keratosis")
    facts = _facts(folder / FACTS_2017, "image_id")
    names = [row["image_id"] for row in rows]
    codes = [_code_2017(row) for row in rows]
    paths = find_images(folder, IMAGES_2017, names)
    return Reading(
        [
            _example(name, name, code, "ISIC 2017", path, facts.get(name, {}))
            for name, code, path in zip(names, codes, paths)
        ]
    )


def isic2018(folder: Path) -> Reading:
    """ISIC 2018 Task 3, with HAM10000's table of lesions or that of the challenge.

    Raises:
        ValueError: a file is missing, a row has not exactly one condition, or an image has no lesion.
    """
    lesions, facts = _lesions_2018(folder)
    rows = read_csv(folder / TRUTH_2018, "image", *CODES)
    names = [row["image"] for row in rows]
    codes = [one_hot(row, CODES, f"{TRUTH_2018}: image {row['image']}") for row in rows]
    if orphans := [name for name in names if name not in lesions]:
        raise ValueError(f"image {orphans[0]} has no lesion id; a split by lesion needs one")
    paths = find_images(folder, IMAGES_2018, names)
    return Reading(
        [
            _example(name, lesions[name], code, "ISIC 2018", path, facts.get(name, {}))
            for name, code, path in zip(names, codes, paths)
        ]
    )


def isic2019(folder: Path) -> Reading:
    """ISIC 2019; images of squamous cell carcinoma and of unknown kind are counted and left out."""
    facts = _facts(folder / FACTS_2019, "image", "lesion_id")
    rows = read_csv(folder / TRUTH_2019, "image", *CODES_2019)
    labelled = [(row["image"], one_hot(row, list(CODES_2019), row["image"])) for row in rows]
    kept = [(name, code) for name, label in labelled if (code := CODES_2019[label])]
    left_out = Counter(label for _, label in labelled if CODES_2019[label] is None)
    paths = find_images(folder, IMAGES_2019, [name for name, _ in kept])
    examples = []
    for (file, code), path in zip(kept, paths):
        # The same photograph as the one without the suffix in the archive and in other challenges.
        name = file.removesuffix("_downsampled")
        lesion = text(facts[file]["lesion_id"]) if file in facts else None
        examples.append(_example(name, lesion or name, code, "ISIC 2019", path, facts.get(file, {})))
    return Reading(examples, dict(left_out))


def ham10000(folder: Path) -> Reading:
    """The HAM10000 download: one table and two folders of images.

    Raises:
        ValueError: a file is missing, or a ``dx`` is none of the seven.
    """
    rows = read_csv(folder / FACTS_HAM, "lesion_id", "image_id", "dx")
    paths = find_images(folder, IMAGES_HAM, [row["image_id"] for row in rows])
    return Reading([_example_ham(row, path) for row, path in zip(rows, paths)])


def _example(name: str, lesion: str, code: str, source: str, path: Path, facts: Row) -> Example:
    """A row whose ``facts`` use any of the names that the challenges gave to age, sex and site."""
    return Example(
        name=name,
        lesion=lesion,
        condition=CODES.index(code),
        source=source,
        read=partial(Path.read_bytes, path),
        age=number(_first(facts, ("age", "age_approx", "age_approximate"))),
        sex=text(_first(facts, ("sex",))),
        site=text(_first(facts, ("localization", "anatom_site_general"))),
    )


def _example_ham(row: Row, path: Path) -> Example:
    condition = condition_of(row["dx"])
    if condition is None:
        raise ValueError(f"{FACTS_HAM}: image {row['image_id']} has the unknown dx {row['dx']!r}")
    return _example(row["image_id"], row["lesion_id"], CODES[condition], "HAM10000", path, row)


def _code_2017(row: Row) -> str:
    melanoma, keratosis = float(row["melanoma"]) == 1, float(row["seborrheic_keratosis"]) == 1
    if melanoma and keratosis:
        raise ValueError(f"{TRUTH_2017}: image {row['image_id']} has two conditions")
    return "MEL" if melanoma else "BKL" if keratosis else "NV"


def _lesions_2018(folder: Path) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Lesion by image, and HAM10000's rows where they are what names the lesions."""
    if (folder / FACTS_HAM).is_file():
        facts = _facts(folder / FACTS_HAM, "image_id", "lesion_id")
        return {name: row["lesion_id"] for name, row in facts.items()}, facts
    if (folder / GROUPS_2018).is_file():
        groups = read_csv(folder / GROUPS_2018, "image", "lesion_id")
        return {row["image"]: row["lesion_id"] for row in groups}, {}
    raise ValueError(f"{folder} has no lesion table: expected {FACTS_HAM} or {GROUPS_2018}")


def _facts(path: Path, key: str, *columns: str) -> dict[str, dict[str, str]]:
    """A table's rows by image; nothing where the data set came without it."""
    if not path.is_file():
        return {}
    return {row[key]: row for row in read_csv(path, key, *columns)}


def _first(facts: Row, columns: Sequence[str]) -> str | None:
    return next((facts[column] for column in columns if column in facts), None)
