"""Readers of every layout, on tiny data sets written here."""

import dataclasses

import datasets
import pytest
import torch

from derma_semantics.domain.conditions import CODES, CONDITIONS
from derma_training import data
from derma_training.data import Example, isic
from derma_training.data.readers import LAYOUTS, scan
from tests.model.data_sets.conftest import MEL, NV, hub_row, images, write_csv


def facts(examples):
    return [(e.name, e.lesion, CODES[e.condition], e.age, e.sex, e.site) for e in examples]


def test_isic2018(isic2018_folder, jpeg):
    examples = data.read(isic2018_folder)
    assert facts(examples) == [
        ("ISIC_2", "HAM_B", "NV", None, None, None),
        ("ISIC_1", "HAM_A", "MEL", 45.0, "male", "back"),
        ("ISIC_3", "HAM_A", "MEL", None, "female", "back"),
    ]
    assert examples[0].read() == jpeg(1)
    assert data.read_isic2018(str(isic2018_folder)) == examples


def test_isic2018_with_the_lesions_of_the_challenge(isic2018_folder):
    (isic2018_folder / isic.FACTS_HAM).unlink()
    groups = isic2018_folder / isic.GROUPS_2018
    header = ["image", "lesion_id", "diagnosis_confirm_type"]
    rows = [["ISIC_1", "L1", "histo"], ["ISIC_2", "L2", "histo"], ["ISIC_3", "L1", "histo"]]
    write_csv(groups, header, *rows)
    assert [e.lesion for e in data.read(isic2018_folder)] == ["L2", "L1", "L1"]
    write_csv(groups, header, *rows[:2])
    with pytest.raises(ValueError, match="image ISIC_3 has no lesion id"):
        data.read(isic2018_folder)
    groups.unlink()
    with pytest.raises(ValueError, match="no lesion table: expected HAM10000_metadata.csv or ISIC2018"):
        data.read(isic2018_folder)


def test_isic2018_files_that_are_wrong_are_named(isic2018_folder):
    examples = data.read(isic2018_folder)
    folder = isic2018_folder / "ISIC2018_Task3_Training_Input"
    (folder / "ISIC_1.jpg").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"image ISIC_1 of ISIC 2018: .*not an image"):
        data.load_pixels(examples)
    (folder / "ISIC_3.jpg").unlink()
    with pytest.raises(ValueError, match="image ISIC_3 of ISIC 2018: .*No such file"):
        data.load_pixels(examples[2:])
    with pytest.raises(ValueError, match="ISIC2018_Task3_Training_Input lacks 1 of 3 images, e.g. ISIC_3"):
        data.read(isic2018_folder)
    write_csv(isic2018_folder / isic.TRUTH_2018, ["image", *CODES], ["ISIC_1", *[1.0] * 7])
    with pytest.raises(ValueError, match="line 2: image ISIC_1 has 7 conditions, expected exactly one"):
        data.read(isic2018_folder)
    write_csv(isic2018_folder / isic.TRUTH_2018, ["image", *CODES[1:]], ["ISIC_1", *[1.0] * 6])
    with pytest.raises(ValueError, match="lacks the columns MEL"):
        data.read(isic2018_folder)


def test_ham10000(tmp_path, jpeg):
    images(tmp_path / "HAM10000_images_part_1", jpeg, ["ISIC_1"])
    images(tmp_path / "HAM10000_images_part_2", jpeg, ["ISIC_2"])
    header = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    rows = [
        ["H1", "ISIC_2", "bkl", "histo", "80.0", "male", "scalp"],
        ["H1", "ISIC_1", "bkl", "", "", "", ""],
    ]
    write_csv(tmp_path / isic.FACTS_HAM, header, *rows)
    examples = data.read(tmp_path)
    assert facts(examples) == [
        ("ISIC_2", "H1", "BKL", 80.0, "male", "scalp"),
        ("ISIC_1", "H1", "BKL", None, None, None),
    ]
    write_csv(tmp_path / isic.FACTS_HAM, header, ["H1", "ISIC_1", "wart", "", "", "", ""])
    with pytest.raises(ValueError, match="image ISIC_1 has the unknown dx 'wart'"):
        data.read(tmp_path)


def test_isic2017(tmp_path, jpeg):
    images(tmp_path / "images", jpeg, ["ISIC_1", "ISIC_2", "ISIC_3"])
    header = ["image_id", "melanoma", "seborrheic_keratosis"]
    rows = [["ISIC_1", "1.0", "0.0"], ["ISIC_2", "0.0", "1.0"], ["ISIC_3", "0.0", "0.0"]]
    write_csv(tmp_path / isic.TRUTH_2017, header, *rows)
    nothing = (None, None, None)
    assert facts(data.read(tmp_path)) == [
        ("ISIC_1", "ISIC_1", "MEL", *nothing),
        ("ISIC_2", "ISIC_2", "BKL", *nothing),
        ("ISIC_3", "ISIC_3", "NV", *nothing),
    ]
    write_csv(
        tmp_path / isic.FACTS_2017, ["image_id", "age_approximate", "sex"], ["ISIC_1", "55", "female"],
        ["ISIC_2", "unknown", "male"],
    )  # fmt: skip
    assert [(e.age, e.sex) for e in data.read(tmp_path)] == [(55.0, "female"), (None, "male"), (None, None)]
    write_csv(tmp_path / isic.TRUTH_2017, header, ["ISIC_1", "1.0", "1.0"])
    with pytest.raises(ValueError, match="image ISIC_1 has 2 conditions"):
        data.read(tmp_path)


def test_isic2019(isic2019_folder):
    with pytest.warns(UserWarning, match="of no condition of ours, left out: 2 SCC"):
        examples = data.read(isic2019_folder)
    assert facts(examples) == [
        ("ISIC_1", "BCN_1", "AKIEC", 70.0, "female", "head/neck"),
        ("ISIC_2", "ISIC_2", "MEL", None, None, None),
        ("ISIC_3", "ISIC_3", "NV", None, None, None),
    ]
    assert scan(isic2019_folder).left_out == {"SCC": 2}


@pytest.mark.parametrize("word", ["code", "name", "ham10000_dx", "marmal88_dx"])
def test_a_folder_per_class(tmp_path, word):
    for condition in CONDITIONS:
        folder = tmp_path / getattr(condition, word).swapcase()
        folder.mkdir()
        (folder / f"photo of {condition.code}.PNG").touch()
        (folder / "notes.txt").touch()
    (tmp_path / ".cache").mkdir()
    examples = data.read(tmp_path)
    assert {(e.name, e.lesion, e.condition) for e in examples} == {
        (f"photo of {code}", f"photo of {code}", index) for index, code in enumerate(CODES)
    }
    assert {e.source for e in examples} == {tmp_path.name}


def test_a_class_folder_of_no_condition_is_refused(tmp_path):
    for name in ("nv", "nevuss"):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="has no images in its class folders"):
        data.read(tmp_path)
    (tmp_path / "nevuss" / "1.jpg").touch()
    with pytest.raises(
        ValueError, match="nevuss has images, but its name is no condition: expected one of MEL"
    ):
        data.read(tmp_path)


def test_no_layout_fits(tmp_path):
    with pytest.raises(ValueError, match="in no known layout: looked for") as caught:
        data.read(tmp_path)
    assert all(layout.sign in str(caught.value) for layout in LAYOUTS)
    with pytest.raises(ValueError, match="neither a folder nor a name on the hub"):
        data.read(tmp_path / "absent")


def test_parquet_in_the_layout_of_the_hub(marmal88, load, jpeg):
    examples = data.read(marmal88, load=load)
    assert [(e.split, e.name) for e in examples] == [
        *[("train", f"ISIC_{i}") for i in (0, 1, 2, 2)],
        ("validation", "ISIC_3"),
        *[("test", f"ISIC_{i}") for i in (0, 1, 4, 5)],
    ]
    assert facts(examples[:2]) == [
        ("ISIC_0", "H0", "NV", None, None, "back"),
        ("ISIC_1", "H1", "MEL", 50.0, "male", "back"),
    ]
    assert examples[4].read() == jpeg(3)
    assert examples[4].source == "skin_cancer"


def test_a_data_set_on_the_hub(jpeg):
    """As ``datasets`` gives it: with its Image feature, here from a fake of the hub."""
    rows = [hub_row("ISIC_1", "H1", "basal_cell_carcinoma", jpeg(1))]
    fake = {"train": datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())}
    asked = []
    examples = data.read("marmal88/skin_cancer", load=lambda name: asked.append(name) or fake)
    assert asked == ["marmal88/skin_cancer"]
    assert facts(examples) == [("ISIC_1", "H1", "BCC", 50.0, "male", "back")]
    assert examples[0].source == "marmal88/skin_cancer"
    assert examples[0].read() == jpeg(1)


def test_what_is_wrong_with_a_data_set_on_the_hub_is_said(jpeg):
    def unreachable(name):
        raise ConnectionError("no network")

    with pytest.raises(ValueError, match="the data set a/b cannot be loaded: no network"):
        data.read("a/b", load=unreachable)
    row = hub_row("ISIC_1", "H1", "wart", jpeg(1))
    with pytest.raises(ValueError, match="a/b: image ISIC_1 has the unknown dx 'wart': expected melanoma"):
        data.read("a/b", load=lambda name: {"train": datasets.Dataset.from_list([row])})
    del row["lesion_id"]
    with pytest.raises(ValueError, match="a/b, split train, lacks the column lesion_id"):
        data.read("a/b", load=lambda name: {"train": datasets.Dataset.from_list([row])})


def test_how_a_diagnosis_was_confirmed_never_enters_the_table(isic2018_folder, marmal88, load):
    assert {field.name for field in dataclasses.fields(Example)} == {
        *("name", "lesion", "condition", "source", "read"),
        *("age", "sex", "site", "split"),
    }
    for found in (*data.read(isic2018_folder), *data.read(marmal88, load=load)):
        assert not {"histo", "follow_up", "consensus", "confocal"} & set(map(str, vars(found).values()))


def test_pixels_are_those_of_preprocessing(isic2018_folder, jpeg):
    from derma_semantics.imaging.preprocess import preprocess

    examples = data.read(isic2018_folder)
    pixels = data.load_pixels(examples)
    assert pixels.dtype == torch.uint8
    assert (pixels[1].numpy() == preprocess(jpeg(0))).all()
    assert data.labels(examples).tolist() == [NV, MEL, MEL]
