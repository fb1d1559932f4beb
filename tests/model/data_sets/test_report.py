"""The data report: what it counts, the leaks it finds, and its command."""

import dataclasses
import functools
import json

import click.testing

from derma_semantics.domain.conditions import CODES
from derma_training.cli import main
from derma_training.data.files import Reading
from derma_training.data.readers import scan
from derma_training.data.report import report, summary
from tests.model.data_sets.conftest import MEL, encoded, example, images


def test_it_shows_the_leak_of_given_splits(marmal88, load):
    found = report(marmal88, scan=functools.partial(scan, load=load))
    assert (found.rows, found.images, found.pictures, found.lesions) == (9, 6, 6, 5)
    assert found.given_parts == {"train": 4, "validation": 1, "test": 4}
    assert found.known == {"age": 8, "sex": 8, "site": 9}
    assert found.images_per_lesion == {1: 4, 2: 1}
    assert found.duplicates.ids == ("ISIC_0", "ISIC_1", "ISIC_2")
    leak = next(o for o in found.overlaps if (o.part, o.other) == ("test", "train"))
    assert (leak.rows, leak.same_image, leak.same_lesion) == (4, 2, 3)
    assert [(o.part, o.other, o.same_lesion) for o in found.overlaps if o != leak] == [
        ("validation", "train", 0),
        ("test", "validation", 0),
    ]
    assert sum(sum(part.values()) for part in found.parts.values()) == 6
    text = summary(found)
    assert "of 4 rows in test, 2 (50.0 %) share an image and 3 (75.0 %) share a lesion with train" in text
    assert "rows             9\n" in text


def test_it_finds_a_leak_that_ids_hide(marmal88, load, picture):
    """The same photograph under another name in the other part."""
    examples = [
        *scan(marmal88, load=load).examples,
        example("renamed", content=encoded(picture(5), quality=60), split="train"),
    ]
    found = report("it", scan=lambda source: Reading(examples))
    leak = next(o for o in found.overlaps if (o.part, o.other) == ("test", "train"))
    assert (leak.same_image, leak.same_lesion) == (3, 4)
    assert found.duplicates.pictures == (("ISIC_5", "renamed"),)
    assert "same picture     1, e.g. ISIC_5 = renamed" in summary(found)


def test_it_lists_what_training_would_refuse(drawn):
    clash = dataclasses.replace(drawn[0], name="copy", condition=MEL)
    found = report("it", scan=lambda source: Reading([*drawn, clash]))
    assert found.parts == {}
    assert found.problems == [
        "image image 0 of here (NV) and image copy of here (MEL) are one picture with two conditions"
    ]
    assert "problem          image image 0" in summary(found)
    found = report("it", scan=lambda source: Reading([drawn[1], odd_one(drawn)]))
    assert found.problems == ["lesion lesion 1 has two conditions (NV and MEL); it cannot be split"]


def odd_one(drawn):
    """Another photograph of lesion 1, with another condition."""
    return dataclasses.replace(drawn[2], condition=MEL, lesion="lesion 1")


def run(*arguments):
    return click.testing.CliRunner().invoke(main, ["data", *map(str, arguments)])


def test_command_prints_it(isic2018_folder):
    result = run(isic2018_folder)
    assert result.exit_code == 0, result.output
    assert "sources          ISIC 2018 3" in result.stdout
    assert "images           3 different ids, 3 different pictures" in result.stdout
    assert "images a lesion  1 with 1, 1 with 2" in result.stdout
    assert "images a condition; parts by lesion, without duplicates, seed 0" in result.stdout


def test_command_as_json(isic2019_folder):
    result = run(isic2019_folder, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["conditions"] == {**dict.fromkeys(CODES, 0), "MEL": 1, "NV": 1, "AKIEC": 1}
    assert report["left_out"] == {"SCC": 2}
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


def test_real_data(isic2018):
    """One photograph a lesion, nothing twice: the figures of the data set's own description."""
    found = report(isic2018)
    assert (found.rows, found.pictures, found.lesions) == (5984, 5984, 5984)
    assert found.conditions["NV"] == 4323
    assert not found.duplicates.ids and not found.problems
    assert {name: sum(counts.values()) for name, counts in found.parts.items()}["test"] == 1198
