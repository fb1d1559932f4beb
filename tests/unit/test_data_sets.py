"""Readers of every layout, and the audit, on tiny data sets written here."""

import csv
import dataclasses
import functools
import io
import json

import click.testing
import datasets
import pyarrow
import pyarrow.parquet
import pytest
import torch

from derma_semantics.conditions import CODES, CONDITIONS
from derma_training import data
from derma_training.cli import main
from derma_training.data import Example, isic
from derma_training.data.balance import MOST_NEVI
from derma_training.data.readers import LAYOUTS, scan

MEL, NV, BCC, AKIEC, BKL = range(5)


def write_csv(path, header, *rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def one_hot(index, count=7):
    return [float(i == index) for i in range(count)]


def example(name, condition=NV, lesion=None, content=b"", source="here", **facts):
    return Example(name, lesion or name, condition, source, lambda: content, **facts)


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def images(folder, jpeg, names):
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        (folder / f"{name}.jpg").write_bytes(jpeg(number))
    return folder


def facts(examples):
    return [(e.name, e.lesion, CODES[e.condition], e.age, e.sex, e.site) for e in examples]


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
    rows = [["ISIC_1", "L1", "histo"], ["ISIC_2", "L2", "histo"], ["ISIC_3", "L1", "histo"]]
    write_csv(groups, ["image", "lesion_id", "diagnosis_confirm_type"], *rows)
    assert [e.lesion for e in data.read(isic2018_folder)] == ["L2", "L1", "L1"]
    write_csv(groups, ["image", "lesion_id"], *rows[:2])
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
    with pytest.raises(ValueError, match="image ISIC_1 has 7 conditions, expected exactly one"):
        data.read(isic2018_folder)
    write_csv(isic2018_folder / isic.TRUTH_2018, ["image", *CODES[1:]], ["ISIC_1", *[1.0] * 6])
    with pytest.raises(ValueError, match="lacks the column MEL"):
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
    with pytest.raises(ValueError, match="image ISIC_1 has two conditions"):
        data.read(tmp_path)


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
    from derma_semantics.preprocess import preprocess

    examples = data.read(isic2018_folder)
    pixels = data.load_pixels(examples)
    assert pixels.dtype == torch.uint8
    assert (pixels[1].numpy() == preprocess(jpeg(0))).all()
    assert data.labels(examples).tolist() == [NV, MEL, MEL]


# The audit


@pytest.fixture(scope="module")
def drawn(picture):
    """Eight pictures, each a lesion."""
    return [example(f"image {i}", lesion=f"lesion {i}", content=encoded(picture(i))) for i in range(8)]


def test_audit_shows_the_leak_of_given_splits(marmal88, load):
    report = data.audit(marmal88, scan=functools.partial(scan, load=load))
    assert (report.rows, report.images, report.pictures, report.lesions) == (9, 6, 6, 5)
    assert report.given_parts == {"train": 4, "validation": 1, "test": 4}
    assert report.known == {"age": 8, "sex": 8, "site": 9}
    assert report.images_per_lesion == {1: 4, 2: 1}
    assert report.duplicates.ids == ("ISIC_0", "ISIC_1", "ISIC_2")
    leak = next(o for o in report.overlaps if (o.part, o.other) == ("test", "train"))
    assert (leak.rows, leak.same_image, leak.same_lesion) == (4, 2, 3)
    assert [(o.part, o.other, o.same_lesion) for o in report.overlaps if o != leak] == [
        ("validation", "train", 0),
        ("test", "validation", 0),
    ]
    assert sum(sum(part.values()) for part in report.parts.values()) == 6
    text = data.summary(report)
    assert "of 4 rows in test, 2 (50.0 %) share an image and 3 (75.0 %) share a lesion with train" in text
    assert "rows             9\n" in text


def test_training_on_the_given_parts_refuses_their_leak(marmal88, load):
    with pytest.raises(ValueError, match="image ISIC_0 stands in train and in test, as do 1 more"):
        data.given_parts(data.read(marmal88, load=load))


def test_audit_finds_a_leak_that_ids_hide(marmal88, load, picture):
    """The same photograph under another name in the other part."""
    examples = [
        *scan(marmal88, load=load).examples,
        example("renamed", content=encoded(picture(5), quality=60), split="train"),
    ]
    report = data.audit("it", scan=lambda source: data.readers.Reading(examples))
    leak = next(o for o in report.overlaps if (o.part, o.other) == ("test", "train"))
    assert (leak.same_image, leak.same_lesion) == (3, 4)
    assert report.duplicates.pictures == (("ISIC_5", "renamed"),)
    assert "same picture     1, e.g. ISIC_5 = renamed" in data.summary(report)


def test_audit_lists_what_training_would_refuse(drawn):
    clash = dataclasses.replace(drawn[0], name="copy", condition=MEL)
    report = data.audit("it", scan=lambda source: data.readers.Reading([*drawn, clash]))
    assert report.parts == report.balanced == {}
    assert report.problems == [
        "image image 0 of here (NV) and image copy of here (MEL) are one picture with two conditions"
    ]
    assert "problem          image image 0" in data.summary(report)
    report = data.audit("it", scan=lambda source: data.readers.Reading([drawn[1], odd_one(drawn)]))
    assert report.problems == ["lesion lesion 1 has two conditions (NV and MEL); it cannot be split"]


def odd_one(drawn):
    """Another photograph of lesion 1, with another condition."""
    return dataclasses.replace(drawn[2], condition=MEL, lesion="lesion 1")


def run(*arguments):
    return click.testing.CliRunner().invoke(main, ["data", *map(str, arguments)])


def test_command_prints_the_audit(isic2018_folder):
    result = run(isic2018_folder, "--max-nevi", 1)
    assert result.exit_code == 0, result.output
    assert "sources          ISIC 2018 3" in result.stdout
    assert "images           3 different ids, 3 different pictures" in result.stdout
    assert "images a lesion  1 with 1, 1 with 2" in result.stdout
    assert "train, NV <= 1" in result.stdout


def test_command_as_json(isic2019_folder):
    result = run(isic2019_folder, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["conditions"] == {**dict.fromkeys(CODES, 0), "MEL": 1, "NV": 1, "AKIEC": 1}
    assert report["left_out"] == {"SCC": 2}
    assert report["most_nevi"] == MOST_NEVI
    assert "2 SCC" in run(isic2019_folder).stdout


def test_command_joins_sources_and_names_bad_ones(isic2019_folder, tmp_path_factory, jpeg):
    other = tmp_path_factory.mktemp("photos")
    images(other / "melanoma", jpeg, ["copy of ISIC_1"])  # which is an AKIEC there
    result = run(isic2019_folder, other)
    assert result.exit_code == 0, result.output
    assert "(AKIEC) and image copy of ISIC_1 of" in result.stdout
    result = run(other / "melanoma")
    assert result.exit_code == 1
    assert "is in no known layout" in result.output
    assert run().exit_code == 2


def test_audit_of_real_data(isic2018):
    """One photograph a lesion, nothing twice: the figures of the data set's own description."""
    report = data.audit(isic2018)
    assert (report.rows, report.pictures, report.lesions) == (5984, 5984, 5984)
    assert report.conditions["NV"] == 4323
    assert not report.duplicates.ids and not report.problems
    assert report.balanced["NV"] == MOST_NEVI
    assert {name: sum(counts.values()) for name, counts in report.parts.items()}["test"] == 1198
