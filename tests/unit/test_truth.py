"""The ground truth: as it is published, and what is wrong with it."""

import pytest

from derma_semantics.domain.formats import CLIENT_SUFFIXES
from derma_semantics.evaluation.truth import read_truth, write_truth
from tests.unit.cases import NAMES, cases_of


@pytest.fixture
def folder(tmp_path):
    """Three images, one of each suffix, and their ground truth."""
    (tmp_path / "images").mkdir()
    for name, suffix in zip(NAMES, (".jpg", ".jpeg", ".PNG"), strict=False):
        (tmp_path / "images" / f"{name}{suffix}").write_bytes(b"x")
    write_truth(tmp_path / "truth.csv", cases_of([0, 1, 6]))
    return tmp_path


def test_truth_is_read_with_and_without_metadata(folder):
    cases = read_truth(folder / "truth.csv", folder / "images")
    assert [case.condition for case in cases] == [0, 1, 6]
    assert [case.path.suffix for case in cases] == [".jpg", ".jpeg", ".PNG"]
    assert [case.lesion for case in cases] == [case.name for case in cases]
    ham = "lesion_id,image_id,dx,age,sex,localization\n" + "".join(
        f"HAM_1,{name},nv,{age},{sex},{site}\n"
        for name, age, sex, site in zip(
            NAMES, ("45.0", "", "nan"), ("male", "unknown", "Female"), ("trunk", "face", ""), strict=False
        )
    )
    archive = ham.replace("image_id", "isic_id").replace(",age,", ",age_approx,")
    archive = archive.replace("localization", "anatom_site_general")
    for table in (ham, archive, "\ufeff" + ham):
        (folder / "about.csv").write_text(table)
        first, second, third = read_truth(folder / "truth.csv", folder / "images", folder / "about.csv")
        assert (first.lesion, first.age, first.sex, first.site) == ("HAM_1", 45, "male", "trunk")
        assert (second.age, second.sex, second.site) == (None, None, "face")
        assert (third.age, third.sex, third.site) == (None, "female", None)
    (folder / "about.csv").write_text("image,lesion_id\n" + "".join(f"{n},L\n" for n in NAMES[:3]))
    assert {case.lesion for case in read_truth(folder / "truth.csv", metadata=folder / "about.csv")} == {"L"}


def test_images_of_every_format_that_the_client_reads_are_found(tmp_path):
    for name, suffix in zip(NAMES, CLIENT_SUFFIXES, strict=False):
        (tmp_path / f"{name}{suffix}").write_bytes(b"x")
    write_truth(tmp_path / "truth.csv", cases_of([0] * len(CLIENT_SUFFIXES)))
    cases = read_truth(tmp_path / "truth.csv", tmp_path)
    assert tuple(case.path.suffix for case in cases) == CLIENT_SUFFIXES
    (tmp_path / f"{NAMES[0]}.dcm").write_bytes(b"x")
    assert read_truth(tmp_path / "truth.csv", tmp_path) == cases  # of one name, the format listed first


HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "truth.csv holds no image"),
        (HEADER.replace(",DF", ""), "truth.csv lacks the columns DF"),
        (HEADER.strip() + ",UNK\n", "truth.csv has the unknown columns UNK"),
        (
            HEADER + "a,1,0,0,0,0,0,0\nb,1.0,1.0,0,0,0,0,0\n",
            "line 3: image b has 2 conditions, expected exactly one 1.0",
        ),
        (HEADER + "a,0,0,0,0,0,0,0\n", "line 2: image a has 0 conditions"),
        (HEADER + "a,0.5,0.5,0,0,0,0,0\n", "line 2: image a has 0 conditions, expected"),
        (HEADER + "a,x,0,0,0,0,0,0\n", "line 2: image a, MEL is 'x', expected a number"),
        (HEADER + "a,1,0,0\n", "line 2: expected 8 fields"),
        (HEADER + "a,1,0,0,0,0,0,0\na,1,0,0,0,0,0,0\n", "line 3: image 'a' again"),
        (HEADER + ",1,0,0,0,0,0,0\n", "line 2: image '' has no name"),
    ],
)
def test_bad_truth_is_named(tmp_path, text, message):
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_truth(tmp_path / "truth.csv")


def test_missing_images_and_bad_metadata_are_named(folder):
    (folder / "about.csv").write_text("image,age\nISIC_0000000,forty\nISIC_0000001,\nISIC_0000002,\n")
    with pytest.raises(ValueError, match=r"about.csv, line 2: age is 'forty', expected a number"):
        read_truth(folder / "truth.csv", folder / "images", folder / "about.csv")
    (folder / "about.csv").write_text("image,age\nISIC_0000000,40\n")
    with pytest.raises(ValueError, match="lacks 2 of 3 images, e.g. ISIC_0000001"):
        read_truth(folder / "truth.csv", folder / "images", folder / "about.csv")
    (folder / "about.csv").write_text("picture\nISIC_0000000\n")
    with pytest.raises(ValueError, match="has none of the columns image_id, image, isic_id"):
        read_truth(folder / "truth.csv", folder / "images", folder / "about.csv")
    (folder / "images" / "ISIC_0000001.jpeg").unlink()
    with pytest.raises(ValueError, match=r"images lacks 1 of 3 images, e.g. ISIC_0000001 \(.jpg, "):
        read_truth(folder / "truth.csv", folder / "images")
