"""The audit: what it counts, the leaks it finds, and its command."""

import dataclasses
import functools
import io
import json

import click.testing
import pytest

from derma_semantics.domain.conditions import CODES
from derma_training import data
from derma_training.cli import main
from derma_training.data import Example
from derma_training.data.balance import MOST_NEVI
from derma_training.data.readers import scan
from tests.model.data_sets.conftest import MEL, NV, images


def example(name, condition=NV, lesion=None, content=b"", source="here", **facts):
    return Example(name, lesion or name, condition, source, lambda: content, **facts)


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


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
