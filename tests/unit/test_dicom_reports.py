"""DICOM out: a Structured Report that other software reads back."""

import io
import logging
import traceback
import warnings

import highdicom
import numpy as np
import pytest
from pydicom import Dataset, FileMetaDataset, dcmread, dcmwrite, uid
from pydicom.sr.codedict import codes as standard

from derma_semantics.domain import errors
from derma_semantics.domain.conditions import CODES, CONDITIONS
from derma_semantics.domain.diagnosis import ServedBundle, from_outputs
from derma_semantics.imaging.dicom import codes, report, write_report
from derma_semantics.imaging.synthetic import draw

BUNDLE = ServedBundle("ab" * 32, "derma-test", "fp32", "1")
PROBABILITIES = np.array([0.6, 1e-9, 0.2, 0.15, 0.03, 0.01, 0.009999999], np.float32)
PATIENT = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientName": "Müller^Jürgen",
    "PatientID": "PAT-18200512",
    "PatientBirthDate": "18200512",
    "PatientSex": "F",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.1",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.2",
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.3",
    "StudyDate": "20260102",
    "StudyTime": "030405",
    "StudyID": "7",
    "AccessionNumber": "A7",
    "ReferringPhysicianName": "Seacole^Mary",
}


def photograph(without=(), **attributes):
    """A DICOM file with a drawn picture, a patient and a study."""
    picture = draw(0, (64, 48)).image
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPInstanceUID = PATIENT["SOPInstanceUID"]
    pixels = {
        "SOPClassUID": uid.DermoscopicPhotographyImageStorage,
        "Modality": "DMS",
        "Rows": picture.height,
        "Columns": picture.width,
        "SamplesPerPixel": 3,
        "PlanarConfiguration": 0,
        "PhotometricInterpretation": "RGB",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": picture.tobytes(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in (pixels | PATIENT | attributes).items():
            if name not in without:
                setattr(ds, name, value)
    file = io.BytesIO()
    dcmwrite(file, ds, enforce_file_format=True)
    return file.getvalue()


def diagnosis(triage=2, bundle=BUNDLE):
    return from_outputs(
        {
            "PROBABILITIES": PROBABILITIES,
            "PREDICTION_SET": np.array([1, 0, 1, 1, 0, 0, 0], bool),
            "RISK": np.array([0.95], np.float32),
            "TRIAGE": np.array([triage], np.int32),
            "EMBEDDING": np.zeros(8, np.float32),
        },
        bundle,
    )


def group_of(document):
    """The one measurement group, as highdicom reads it from the file."""
    content = highdicom.sr.ComprehensiveSR.from_dataset(document).content
    (group,) = content.get_image_measurement_groups()
    return group


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """A report, written and read back."""
    folder = tmp_path_factory.mktemp("reports") / "new"
    path = write_report(photograph(), diagnosis(), folder)
    assert path.parent == folder
    document = dcmread(path)
    assert path.name == f"{document.SOPInstanceUID}.dcm"
    return document


def test_it_is_a_report_of_the_same_patient_and_study(document):
    assert document.SOPClassUID == uid.ComprehensiveSRStorage
    copied = [name for name in PATIENT if name not in ("SeriesInstanceUID", "SOPInstanceUID")]
    assert {name: document[name].value for name in copied} == {name: PATIENT[name] for name in copied}
    assert document.SeriesInstanceUID != PATIENT["SeriesInstanceUID"]
    assert (document.Modality, document.Manufacturer) == ("SR", "derma-semantics")


def test_no_person_has_verified_it(document):
    assert (document.VerificationFlag, document.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert document.CompletionFlag == "COMPLETE"


def test_it_refers_to_the_photograph(document):
    evidence = highdicom.sr.ComprehensiveSR.from_dataset(document).get_evidence()
    expected = [PATIENT[f"{level}InstanceUID"] for level in ("Study", "Series", "SOP")]
    assert evidence == [(*expected, uid.DermoscopicPhotographyImageStorage)]
    (source,) = group_of(document).source_images
    assert source.referenced_sop_instance_uid == PATIENT["SOPInstanceUID"]


def test_probabilities_and_risk_are_numbers(document):
    found = {m.name.value: m for m in group_of(document).get_measurements()}
    expected = {f"P_{code}": float(p) for code, p in zip(CODES, PROBABILITIES)} | {"RISK": 0.95}
    assert {name: m.value for name, m in found.items()} == pytest.approx(expected, abs=1e-6)
    assert found["P_NV"].value == pytest.approx(1e-9)
    assert {m.name.scheme_designator for m in found.values()} == {"99DERMA"}
    assert {m.unit.value for m in found.values()} == {"1"}


def test_the_rest_are_codes(document):
    found = [
        (e.name.value, (e.value.scheme_designator, e.value.value))
        for e in group_of(document).get_qualitative_evaluations()
    ]
    assert found == [
        ("TRIAGE", ("99DERMA", "URGENT")),
        ("HIGH_RISK", ("SCT", "373066001")),
        ("TOP", ("SCT", "93655004")),
        ("PREDICTION_SET", ("SCT", "93655004")),
        ("PREDICTION_SET", ("SCT", "254701007")),
        ("PREDICTION_SET", ("99DERMA", "AKIEC")),
    ]


def test_it_says_what_computed_it_and_for_what(document):
    texts = {}
    for item in group_of(document)[0].ContentSequence:
        if item.ValueType == "TEXT":
            texts.setdefault(item.ConceptNameCodeSequence[0].CodeMeaning, []).append(item.TextValue)
    assert texts["Algorithm Name"] == ["derma-semantics"]
    assert texts["Algorithm Parameters"] == ["bundle derma-test", "sha256 " + "ab" * 32]
    assert texts["Comment"] == ["Research use. Not a medical device."]
    assert "Research use. Not a medical device." in document.SeriesDescription


def test_the_device_is_the_bundle():
    def device(digest):
        document = report(photograph(), diagnosis(bundle=ServedBundle(digest)))
        content = highdicom.sr.ComprehensiveSR.from_dataset(document).content
        (context,) = content.get_observer_contexts(observer_type=standard.DCM.Device)
        return context.observer_identifying_attributes.uid

    assert device("ab" * 32) == device("ab" * 32) != device("cd" * 32)


def test_another_answer_gives_another_report():
    routine = report(photograph(), diagnosis(triage=0))
    names = {e.name.value: e.value.value for e in group_of(routine).get_qualitative_evaluations()}
    assert names["TRIAGE"] == "ROUTINE"


@pytest.mark.parametrize("sop_class", [uid.VLPhotographicImageStorage, uid.SecondaryCaptureImageStorage])
def test_other_photographs_are_reported_too(sop_class, tmp_path):
    path = tmp_path / "x.dcm"
    path.write_bytes(photograph(SOPClassUID=sop_class))
    assert group_of(report(path, diagnosis())).source_images[0].referenced_sop_class_uid == sop_class


def test_every_report_is_new(tmp_path):
    paths = {write_report(photograph(), diagnosis(), tmp_path) for _ in range(2)}
    assert len(paths) == 2


def test_empty_attributes_are_copied_as_empty():
    lacking = ("PatientBirthDate", "PatientSex", "StudyID", "StudyTime", "AccessionNumber", "PatientID")
    document = report(photograph(without=lacking), diagnosis())
    assert all(document[name].is_empty for name in lacking)


NAMES = {
    "Japanese, JIS X 0208": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Japanese, JIS X 0201 too": (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    "Japanese, JIS X 0212 too": (
        ["", "ISO 2022 IR 87", "ISO 2022 IR 159"],
        "Saito^Ryo=齋藤^丂=さい^りょう",
    ),
    "Korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "Chinese, GB 18030": ("GB18030", "Wang^XiaoDong=王^小东"),
    "UTF-8": ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
    "Western European": ("ISO_IR 100", "Müller^Jürgen"),
    "none stated": (None, "Mueller^Juergen"),
}


@pytest.mark.parametrize("script", NAMES)
def test_names_in_every_script_are_copied(script, tmp_path):
    stated, name = NAMES[script]
    data = photograph(SpecificCharacterSet=stated, PatientName=name, StudyDescription=name.split("=")[-1])
    assert str(dcmread(io.BytesIO(data)).PatientName) == name
    document = dcmread(write_report(data, diagnosis(), tmp_path))
    assert (str(document.PatientName), document.SpecificCharacterSet) == (name, "ISO_IR 192")
    assert document.StudyDescription == name.split("=")[-1]


def test_chinese_names_in_gb_2312_are_copied(tmp_path):
    """The example of DICOM PS3.5, section K.2."""
    name = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab="
    data = photograph(SpecificCharacterSet=["", "ISO 2022 IR 58"], PatientName="x" * len(name))
    document = dcmread(write_report(data.replace(b"x" * len(name), name), diagnosis(), tmp_path))
    assert str(document.PatientName).rstrip("=") == "Zhang^XiaoDong=张^小东"


def test_a_name_in_another_character_set_than_stated_is_not_guessed():
    data = photograph(SpecificCharacterSet="ISO_IR 192", PatientName="Mxller")
    with pytest.raises(errors.CorruptImage, match="PatientName .* not in the character set") as caught:
        report(data.replace(b"Mxller", b"M\xfcller"), diagnosis())
    assert "ller" not in str(caught.value)


@pytest.mark.parametrize(
    ("date", "copied"),
    [
        ("1993.08.22", "19930822"),
        ("18991231", "18991231"),
        ("00010101", "00010101"),
        ("1920", ""),
        ("19200000", ""),
        ("20260230", ""),
        ("2020112", ""),
        ("a day in May", ""),
    ],
)
def test_old_dates_are_copied_and_none_is_made_up(date, copied, tmp_path):
    data = photograph(StudyDate=date, PatientBirthDate=date)
    document = dcmread(write_report(data, diagnosis(), tmp_path))
    assert (document.StudyDate, document.PatientBirthDate) == (copied, copied)


@pytest.mark.parametrize(
    ("time", "copied"), [("03:04:05", "030405"), ("0304", "0304"), ("030405.125", "030405.125"), ("99", "")]
)
def test_old_times_are_copied_and_none_is_made_up(time, copied):
    assert str(report(photograph(StudyTime=time), diagnosis()).StudyTime) == copied


def test_a_sex_that_dicom_does_not_know_is_left_empty():
    assert report(photograph(PatientSex="W"), diagnosis()).PatientSex == ""


def test_a_damaged_attribute_that_no_report_needs_is_left_out():
    data = photograph(StudyDescription="ab")
    at = data.index(b"\x08\x00\x30\x10LO")
    document = report(data[: at + 4] + b"ZZ" + data[at + 6 :], diagnosis())
    assert document.PatientID == PATIENT["PatientID"]


@pytest.mark.parametrize("attribute", ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
def test_what_a_report_must_refer_to(attribute):
    with pytest.raises(errors.CorruptImage, match=f"no {attribute}"):
        report(photograph(without=[attribute]), diagnosis())


def test_only_photographs_are_reported():
    with pytest.raises(errors.UnsupportedFormat, match="CT Image Storage"):
        report(photograph(SOPClassUID=uid.CTImageStorage), diagnosis())
    with pytest.raises(errors.UnsupportedFormat, match="no DICOM file header"):
        report(b"\xff\xd8" + bytes(500), diagnosis())


@pytest.mark.parametrize(
    "attributes",
    [{"StudyDate": "Seacole's day"}, {"StudyTime": "Seacole"}, {"PatientID": "Seacole" * 20}, {}],
)
def test_neither_errors_nor_logs_name_the_patient(attributes, caplog, recwarn, tmp_path):
    data = photograph(**attributes)
    caplog.set_level(logging.DEBUG, "pydicom")
    caplog.set_level(logging.DEBUG, "highdicom")
    caplog.clear()
    recwarn.clear()
    said = ""
    try:
        write_report(data, diagnosis(), tmp_path)
    except errors.CorruptImage as error:
        said = "".join(traceback.format_exception(error))
    said += caplog.text + "".join(str(warning.message) for warning in recwarn)
    assert not [value for value in ("Seacole", *PATIENT.values()) if len(value) > 2 and value in said]
    assert logging.getLogger("pydicom").getEffectiveLevel() == logging.DEBUG


def test_codes_fit_their_attributes():
    assert all(len(value) <= 16 and len(meaning) <= 64 for value, meaning in codes.MEANINGS.items())
    assert len(set(codes.MEANINGS.values())) == len(codes.MEANINGS)


def verhoeff(digits):
    """0 where the last digit is the check digit that SNOMED CT demands."""
    permutations = [list(range(10)), [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
    while len(permutations) < 8:
        permutations.append([permutations[1][n] for n in permutations[-1]])

    def times(a, b):  # in the dihedral group of the pentagon
        turned, flipped = (a + b if a < 5 else a - b) % 5, (a >= 5) != (b >= 5)
        return turned + 5 * flipped

    total = 0
    for place, digit in enumerate(reversed(digits)):
        total = times(total, permutations[place % 8][int(digit)])
    return total


def test_snomed_codes_have_their_check_digit():
    known = [condition.snomed for condition in CONDITIONS if condition.snomed]
    assert len(set(known)) == len(known) >= 3
    assert [code for code in known if verhoeff(code)] == []
    assert verhoeff("93655005") != 0
