"""Tiny data sets in the layouts of ISIC and of the hub, and what writes others."""

import csv
import functools

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from derma_semantics.domain.conditions import CODES
from derma_training.data import isic

MEL, NV, BCC, AKIEC, BKL = range(5)


def write_csv(path, header, *rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def one_hot(index, count=7):
    return [float(i == index) for i in range(count)]


def images(folder, jpeg, names):
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        (folder / f"{name}.jpg").write_bytes(jpeg(number))
    return folder


@pytest.fixture
def isic2018_folder(tmp_path, jpeg):
    images(tmp_path / "ISIC2018_Task3_Training_Input", jpeg, ["ISIC_1", "ISIC_2", "ISIC_3"])
    rows = [["ISIC_2", *one_hot(NV)], ["ISIC_1", *one_hot(MEL)], ["ISIC_3", *one_hot(MEL)]]
    write_csv(tmp_path / isic.TRUTH_2018, ["image", *CODES], *rows)
    write_csv(
        tmp_path / isic.FACTS_HAM,
        ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"],
        ["HAM_A", "ISIC_1", "mel", "histo", "45", "male", "back"],
        ["HAM_B", "ISIC_2", "nv", "follow_up", "", "unknown", "unknown"],
        ["HAM_A", "ISIC_3", "mel", "histo", "nan", "female", "back"],
    )
    return tmp_path


@pytest.fixture
def isic2019_folder(tmp_path, jpeg):
    """Images of no condition of ours need not even be there."""
    columns = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
    images(tmp_path / "ISIC_2019_Training_Input", jpeg, ["ISIC_1_downsampled", "ISIC_2", "ISIC_3"])
    hot = {"ISIC_1_downsampled": "AK", "ISIC_2": "MEL", "ISIC_3": "NV", "ISIC_4": "SCC", "ISIC_5": "SCC"}
    rows = [[name, *one_hot(columns.index(code), 9)] for name, code in hot.items()]
    write_csv(tmp_path / isic.TRUTH_2019, ["image", *columns], *rows)
    write_csv(
        tmp_path / isic.FACTS_2019,
        ["image", "age_approx", "anatom_site_general", "lesion_id", "sex"],
        ["ISIC_1_downsampled", "70", "head/neck", "BCN_1", "female"],
        ["ISIC_2", "", "", "", ""],
    )
    return tmp_path


def hub_row(name, lesion, dx, content, **more):
    known = {"dx_type": "histo", "age": 50.0, "sex": "male", "localization": "back", **more}
    return {
        "image": {"bytes": content, "path": None},
        "image_id": name,
        "lesion_id": lesion,
        "dx": dx,
        **known,
    }


@pytest.fixture
def marmal88(tmp_path, jpeg):
    """The hub's layout with its leak: of four test rows, two share an image and three a lesion with train."""
    nevi, cancer = "melanocytic_Nevi", "melanoma"
    splits = {
        "train": [
            hub_row("ISIC_0", "H0", nevi, jpeg(0), age=None, sex="unknown"),
            hub_row("ISIC_1", "H1", cancer, jpeg(1)),
            hub_row("ISIC_2", "H2", nevi, jpeg(2)),
            hub_row("ISIC_2", "H2", nevi, jpeg(2)),
        ],
        "validation": [hub_row("ISIC_3", "H3", nevi, jpeg(3))],
        "test": [
            hub_row("ISIC_0", "H0", nevi, jpeg(0)),
            hub_row("ISIC_1", "H1", cancer, jpeg(1)),
            hub_row("ISIC_4", "H2", nevi, jpeg(4)),
            hub_row("ISIC_5", "H5", nevi, jpeg(5)),
        ],
    }
    folder = tmp_path / "skin_cancer"
    (folder / "data").mkdir(parents=True)
    for split, rows in splits.items():
        # Two shards a split where there are rows for them, as the hub has them.
        shards = [rows[: len(rows) // 2], rows[len(rows) // 2 :]] if len(rows) > 1 else [rows]
        for number, shard in enumerate(shards):
            name = f"{split}-{number:05d}-of-{len(shards):05d}-0123456789abcdef.parquet"
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(shard), folder / "data" / name)
    return folder


@pytest.fixture
def load(tmp_path):
    return functools.partial(datasets.load_dataset, cache_dir=str(tmp_path / "cache"))
