"""The table, duplicates and splits, on planted cases."""

import dataclasses
import io

import pytest
import torch
from PIL import Image

from derma_semantics.domain.conditions import CODES
from derma_training import data
from derma_training.data import Parts, Shares
from derma_training.data.duplicates import find_duplicates
from derma_training.data.pictures import THRESHOLD, compare, hashes
from tests.model.data_sets.conftest import MEL, NV, encoded, example


def test_held_out_images_are_picked_by_name():
    """Whatever else a user's copy of the data holds."""
    examples = [example(f"ISIC_{i}") for i in range(5)]
    assert data.pick(examples, ["ISIC_3", "ISIC_1"]) == [examples[3], examples[1]]
    with pytest.raises(ValueError, match="lacks 1 of 2 images, e.g. ISIC_9"):
        data.pick(examples, ["ISIC_3", "ISIC_9"])


# Duplicates


@pytest.fixture(
    params=["the bytes", "re-encoded", "resized", "as PNG, larger", "cropped as a model sees it"],
    scope="module",
)
def copy(request, picture):
    """Another file of picture 2."""
    original = Image.open(io.BytesIO(encoded(picture(2))))
    return {
        "the bytes": lambda: encoded(picture(2)),
        "re-encoded": lambda: encoded(original, quality=50),
        "resized": lambda: encoded(original.resize((150, 112)), quality=80),
        "as PNG, larger": lambda: encoded(original.resize((600, 450)), "PNG"),
        "cropped as a model sees it": lambda: encoded(original.crop((37, 0, 262, 225)).resize((224, 224))),
    }[request.param]()


def test_a_copy_is_found_and_joins_its_lesions(drawn, copy):
    """One copy is dropped; the other photographs of both lesions can no longer be torn apart."""
    other = dataclasses.replace(drawn[7], lesion="elsewhere")
    examples = [*drawn[:7], example("copy", lesion="elsewhere", content=copy), other]
    found = find_duplicates(examples)
    assert found.pictures == (("image 2", "copy"),)
    assert found.lesions == (("lesion 2", "elsewhere"),)
    assert not found.ids and not found.conflicts
    assert found.nearest[2] > THRESHOLD
    kept = data.deduplicate(examples, found)
    assert [e.name for e in kept] == [f"image {i}" for i in range(8)]
    assert [e.lesion for e in kept if e.name in ("image 2", "image 7")] == ["lesion 2", "lesion 2"]


def test_the_same_id_twice(drawn):
    """The first row stays, even where the files differ; its lesions are one."""
    later = dataclasses.replace(drawn[5], name="image 1", source="there")
    found = find_duplicates([*drawn[:3], later, drawn[1]])
    assert found.ids == ("image 1",)
    assert found.lesions == (("lesion 1", "lesion 5"),)
    assert data.deduplicate([*drawn[:3], later, drawn[1]]) == drawn[:3]


def test_lesions_are_joined_through_a_third(drawn):
    chain = [
        dataclasses.replace(drawn[0], lesion="a"),
        dataclasses.replace(drawn[0], lesion="b"),
        dataclasses.replace(drawn[1], lesion="c"),
        dataclasses.replace(drawn[1], lesion="d"),
        dataclasses.replace(drawn[2], lesion="d"),
        dataclasses.replace(drawn[2], lesion="a"),
        drawn[3],
    ]
    (joined,) = find_duplicates(chain).lesions
    assert set(joined) == {"a", "b", "c", "d"}
    assert len({e.lesion for e in data.deduplicate(chain)}) == 2


def test_two_photographs_of_one_lesion_are_no_duplicates(drawn):
    examples = [dataclasses.replace(e, lesion="one") for e in drawn]
    assert data.deduplicate(examples) == examples


def test_one_picture_with_two_conditions_is_refused(drawn):
    by_id = dataclasses.replace(drawn[0], condition=MEL, source="there")
    with pytest.raises(
        ValueError, match=r"image image 0 of here \(NV\) and image image 0 of there \(MEL\) are one picture"
    ):
        data.deduplicate([*drawn, by_id])
    by_picture = dataclasses.replace(by_id, name="copy")
    with pytest.raises(
        ValueError,
        match=r"image image 0 of here \(NV\) and image copy of there \(MEL\) are one .* \(and 1 more\)",
    ):
        data.deduplicate([*drawn, by_picture, dataclasses.replace(drawn[1], name="again", condition=MEL)])


def test_nothing_and_one_image_have_no_duplicates(drawn):
    assert data.deduplicate([]) == []
    assert data.deduplicate(drawn[:1]) == drawn[:1]
    with pytest.raises(ValueError, match="image broken of here: "):
        data.deduplicate([*drawn, example("broken", content=b"no image")])


def test_many_hashes_are_compared_as_one_by_one():
    """Across the borders of blocks."""
    signs = (
        torch.randint(0, 2, (1100, 256), generator=torch.Generator().manual_seed(0)).float().numpy() * 2 - 1
    )
    signs[1050] = signs[3]
    signs[1050, :THRESHOLD] *= -1
    signs[700] = signs[600]
    signs[700, : THRESHOLD + 1] *= -1
    compared = compare(signs)
    assert compared.same == [[3, 1050]]
    assert (compared.nearest.one, compared.nearest.other, compared.nearest.bits) == (600, 700, THRESHOLD + 1)


def test_real_lesions_are_told_apart_and_real_copies_found(isic2018):
    """Of 300 lesions; ``derma-train data`` compares all."""
    examples = data.read(isic2018)[::20]
    originals = [Image.open(io.BytesIO(e.read())) for e in examples]
    copies = [encoded(image.resize((112, 112)), quality=75) for image in originals[::2]]
    copies += [encoded(image, quality=50) for image in originals[1::2]]
    again = [example(f"copy {i}", content=content) for i, content in enumerate(copies)]
    assert compare(hashes(examples)).same == []
    assert len(compare(hashes([*examples, *again])).same) == len(examples)


# Splits


@pytest.fixture(scope="module")
def many():
    """Lesions of uneven number by condition; each third has two photographs."""
    counts = dict(zip(range(7), (49, 200, 27, 13, 31, 6, 3)))
    lesions = [
        (condition, f"{CODES[condition]} {i:03d}") for condition in counts for i in range(counts[condition])
    ]
    twice = [lesion for lesion in lesions if lesion[1].endswith("3")]
    return [example(f"{name}, {i}", c, name) for i, rows in enumerate((lesions, twice)) for c, name in rows]


def lesions_of(examples, condition=None):
    return {e.lesion for e in examples if condition in (None, e.condition)}


def test_split_keeps_lesions_together_and_is_stratified(many):
    parts = data.split_by_lesion(many, seed=3)
    assert sorted(e.name for _, part in parts for e in part) == sorted(e.name for e in many)
    data.check_disjoint(parts)
    for condition in range(7):
        count = len(lesions_of(many, condition))
        sizes = [
            len(lesions_of(part, condition)) for part in (parts.test, parts.calibration, parts.validation)
        ]
        if count > 3:
            cuts = [round(share * count) for share in (0.2, 0.2 + 0.1, 0.2 + 0.1 + 0.1)]
            assert sizes == [cuts[0], cuts[1] - cuts[0], cuts[2] - cuts[1]]
        else:
            assert sizes == [1, 1, 0]
    assert data.split_by_lesion(many, seed=3) == parts
    assert lesions_of(data.split_by_lesion(many[::-1], seed=3).test) == lesions_of(parts.test)
    assert data.split_by_lesion(many, seed=4) != parts


def test_shares_are_a_setting(many):
    parts = data.split_by_lesion(many, seed=0, shares=Shares(test=0.5, calibration=0.25, validation=0))
    assert parts.validation == []
    assert len(lesions_of(parts.test, NV)) == 100
    assert len(lesions_of(parts.calibration, NV)) == 50
    assert data.split_by_lesion(many, seed=0, shares=Shares(0, 0, 0)) == Parts(train=many)
    with pytest.raises(ValueError, match="must leave something for training"):
        Shares(0.5, 0.4, 0.1)
    with pytest.raises(ValueError, match="no share may be negative"):
        Shares(test=-0.1)


def test_other_sources_train_and_a_share_of_them_is_measured_apart(many):
    """The target's parts are the same with and without them; its lesions stay its own in any source."""
    others = [example(f"other {c} {i}", c, source="other") for i in range(40) for c in (0, NV)]
    again = dataclasses.replace(many[0], name="again", source="other")
    alone = data.split_by_lesion(many, seed=3)
    given = [*many, *others, again]
    parts = data.split_by_lesion(given, seed=3, target=many[0].source)
    for name in ("test", "calibration", "validation"):
        assert lesions_of(getattr(parts, name)) == lesions_of(getattr(alone, name))
    assert len(lesions_of(parts.other, 0)) == len(lesions_of(parts.other, NV)) == 8
    assert {e.source for e in parts.other} == {"other"}
    assert sorted(e.name for _, part in parts for e in part) == sorted(e.name for e in given)
    data.check_disjoint(parts)
    with pytest.raises(ValueError, match=r"no image is of the target 'ISIC 1': the data has .*other"):
        data.split_by_lesion([*many, *others], seed=3, target="ISIC 1")


def test_five_folds_test_every_lesion_once(many):
    folds = [data.split_by_lesion(many, seed=1, fold=fold) for fold in range(5)]
    tested = [lesion for parts in folds for lesion in lesions_of(parts.test)]
    assert set(tested) == lesions_of(many)
    few = lesions_of(many, 6)  # three lesions cannot fill five folds
    assert len([lesion for lesion in tested if lesion not in few]) == len(lesions_of(many) - few)
    assert folds[0] == data.split_by_lesion(many, seed=1)
    with pytest.raises(ValueError, match="fold 5 with a test share of 0.2 lies outside"):
        data.split_by_lesion(many, seed=1, fold=5)


def test_a_lesion_with_two_conditions_is_refused(many):
    with pytest.raises(ValueError, match=r"lesion MEL 004 has two conditions \(MEL and NV\)"):
        data.split_by_lesion([*many, example("odd", NV, "MEL 004")], seed=0)


def test_parts_that_overlap_are_refused():
    one, other = example("ISIC_1", lesion="H1"), example("ISIC_2", lesion="H1")
    data.check_disjoint(Parts(train=[one, other], test=[example("ISIC_3")]))
    with pytest.raises(ValueError, match="lesion H1 stands in train and in test: "):
        data.check_disjoint(Parts(train=[one], test=[other]))
    with pytest.raises(ValueError, match="image ISIC_1 stands in calibration and in test: "):
        data.check_disjoint(Parts(calibration=[one], test=[dataclasses.replace(one, lesion="H9")]))
    rows = [example(f"ISIC_{i}") for i in range(1500)]
    with pytest.raises(ValueError, match="ISIC_0 stands in train and in validation, as do 1,499 more"):
        data.check_disjoint(Parts(train=rows, validation=rows))


def test_one_image_under_two_lesions_cannot_be_split():
    rows = [example(f"ISIC_{i}") for i in range(50)]
    with pytest.raises(ValueError, match="image ISIC_1. stands in "):
        data.split_by_lesion(
            [*rows, *(dataclasses.replace(e, lesion=f"{e.name}b") for e in rows[10:20])], seed=0
        )
