"""An answer of the service as a DICOM Structured Report, beside the photograph in its study.

    path = write_report("lesion.dcm", client.classify("lesion.dcm"), "reports")

A Comprehensive SR with template TID 1500, Measurement Report: one measurement group with the seven
probabilities and RISK as numbers, the rest as coded evaluations. It refers to the photograph, copies
its patient and study, and stays preliminary and unverified: no person has seen it. Texts are copied
into UTF-8, whatever the photograph's character set; dates, times and a sex that DICOM does not know
are left empty.
"""

from __future__ import annotations

import io
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from derma_semantics.domain.conditions import CONDITIONS
from derma_semantics.domain.contract import NOTICE
from derma_semantics.domain.diagnosis import Diagnosis
from derma_semantics.domain.errors import CorruptImage
from derma_semantics.domain.regular import read_regular
from derma_semantics.imaging.dicom import codes
from derma_semantics.imaging.dicom.files import DERMOSCOPIC_PHOTOGRAPHY, boundary, read, silence

NAME = "derma-semantics"
INVALID = "an attribute of the DICOM file is not valid, so no report can copy it"

_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
UTF_8 = "ISO_IR 192"
GB_2312 = "\x1b$)A"  # DICOM PS3.3, table C.12-4
TEXTS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")  # to which a character set applies
UNREADABLE = "\ufffd"  # what decoding leaves where bytes are not of the character set
SEXES = ("M", "F", "O")

# A report must have these, if only empty; photographs lack them more often than the standard allows.
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)


def report(source: bytes | str | os.PathLike[str], diagnosis: Diagnosis) -> Any:
    """The Structured Report of what the service said of ``source``.

    Args:
        source: the DICOM photograph that was classified, a path or its bytes.

    Returns:
        A ``highdicom.sr.ComprehensiveSR``, which is a ``pydicom.Dataset``: ``save_as`` writes it.

    Raises:
        InvalidImage: ``source`` is no supported DICOM file, or lacks what a report must refer to.
        OSError: a path cannot be read.
    """
    data = source if isinstance(source, bytes) else read_regular(source)
    with silence(), boundary(INVALID):
        return _document(_evidence(data), diagnosis)


def write_report(
    source: bytes | str | os.PathLike[str], diagnosis: Diagnosis, folder: str | os.PathLike[str]
) -> Path:
    """Write ``report(source, diagnosis)`` into ``folder``, which is made where it is missing.

    Returns:
        The file: the report's SOP Instance UID, ``.dcm``. Every call writes a new one.

    Raises:
        InvalidImage, OSError: as ``report``; or the file cannot be written.
    """
    document = report(source, diagnosis)
    file = io.BytesIO()
    with silence(), boundary(INVALID):
        document.save_as(file)
    path = Path(folder) / f"{document.SOPInstanceUID}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.getvalue())
    return path


def _evidence(data: bytes) -> Any:
    """The photograph's attributes, with all that a report copies."""
    image = read(data)
    _drop_unreadable(image)
    for attribute in _UIDS:
        if not image.get(attribute):
            raise CorruptImage(f"the DICOM file has no {attribute}, so no report can refer to it")
    for attribute in _MAY_BE_EMPTY:
        if attribute not in image:
            setattr(image, attribute, "")
    _in_unicode(image)
    image.StudyDate, image.PatientBirthDate = _date(image.StudyDate), _date(image.PatientBirthDate)
    image.StudyTime = _time(image.StudyTime)
    if image.PatientSex not in SEXES:
        image.PatientSex = ""
    return image


def _drop_unreadable(dataset: Any) -> None:
    """One damaged attribute of many is no reason for no report; what a report needs is looked at later."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
            for item in element.value if element.VR == "SQ" else ():
                _drop_unreadable(item)
        except Exception:  # pydicom raises whatever a damaged value provokes
            del dataset[tag]


def _in_unicode(image: Any) -> None:
    """Decode all texts, and say UTF-8: highdicom does not know every character set."""
    image.decode()
    image.walk(_drop_escape)
    image.SpecificCharacterSet = UTF_8
    for attribute in ("PatientName", "PatientID"):
        if UNREADABLE in str(image[attribute].value):
            raise CorruptImage(
                f"the {attribute} of the DICOM file is not in the character set that the file states, "
                "so no report can copy it"
            )


def _drop_escape(_: Any, element: Any) -> None:
    """Pydicom 3.0 leaves the escape sequence of GB 2312 (ISO 2022 IR 58) in what it has decoded."""
    if element.VR in TEXTS and GB_2312 in str(element.value):
        element.value = str(element.value).replace(GB_2312, "")


def _date(value: Any) -> str:
    """YYYYMMDD, which ACR-NEMA wrote as YYYY.MM.DD; empty where it is none, as when only a year is known."""
    text = str(value or "").replace(".", "").strip()
    with suppress(ValueError):
        if len(text) == len("YYYYMMDD"):  # strptime would take less
            datetime.strptime(text, "%Y%m%d")
            return text
    return ""


def _time(value: Any) -> str:
    """HHMMSS with its fraction, or less of it, which ACR-NEMA wrote as HH:MM:SS; empty where it is none."""
    from pydicom.valuerep import TM

    text = str(value or "").replace(":", "").strip()
    with suppress(ValueError):
        TM(text)
        return text
    return ""


def _document(image: Any, diagnosis: Diagnosis) -> Any:
    from highdicom import UID
    from highdicom.sr import ComprehensiveSR, MeasurementReport
    from pydicom.sr.codedict import codes as standard

    dermoscopy = image.SOPClassUID == DERMOSCOPIC_PHOTOGRAPHY
    content = MeasurementReport(
        observation_context=_observer(diagnosis),
        procedure_reported=standard.SCT.DermoscopicPhotography
        if dermoscopy
        else standard.SCT.PhotographyOfPatient,
        imaging_measurements=[_group(image, diagnosis)],
    )
    document = ComprehensiveSR(
        evidence=[image],
        content=content,
        series_instance_uid=UID(),
        series_number=1,
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer=NAME,
        manufacturer_model_name=_model(diagnosis),
        software_versions=_version(),
        series_description=f"{NAME}: {NOTICE}",
        is_complete=True,
    )
    document.CodingSchemeIdentificationSequence = [codes.scheme()]
    return document


def _observer(diagnosis: Diagnosis) -> Any:
    """The device that observed: one UID a bundle, since another bundle answers differently."""
    from highdicom.sr import DeviceObserverIdentifyingAttributes, ObservationContext, ObserverContext
    from pydicom.sr.codedict import codes as standard
    from pydicom.uid import generate_uid

    device = DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=[NAME, diagnosis.bundle.digest]),
        name=NAME,
        manufacturer_name=NAME,
        model_name=_model(diagnosis),
    )
    return ObservationContext(observer_device_context=ObserverContext(standard.DCM.Device, device))


def _group(image: Any, diagnosis: Diagnosis) -> Any:
    from highdicom import UID, sr
    from pydicom.sr.codedict import codes as standard

    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=UID(), identifier="lesion"),
        finding_type=standard.SCT.SkinLesion,
        algorithm_id=sr.AlgorithmIdentification(
            name=NAME,
            version=_version(),
            parameters=[f"bundle {_model(diagnosis)}", f"sha256 {diagnosis.bundle.digest}"],
        ),
        source_images=[sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)],
        measurements=_numbers(diagnosis),
        qualitative_evaluations=_evaluations(diagnosis),
    )
    group[0].ContentSequence.append(
        sr.TextContentItem(standard.DCM.Comment, NOTICE, sr.RelationshipTypeValues.CONTAINS)
    )
    return group


def _numbers(diagnosis: Diagnosis) -> list[Any]:
    from highdicom.sr import Measurement
    from pydicom.sr.codedict import codes as standard

    by_condition = {finding.condition: finding.probability for finding in diagnosis.differential}
    values = {f"P_{condition.code}": by_condition[condition] for condition in CONDITIONS}
    values["RISK"] = diagnosis.risk
    return [Measurement(codes.own(name), value, standard.UCUM.NoUnits) for name, value in values.items()]


def _evaluations(diagnosis: Diagnosis) -> list[Any]:
    from highdicom.sr import QualitativeEvaluation
    from pydicom.sr.codedict import codes as standard

    yes, no = standard.SCT.Yes, standard.SCT.No
    pairs = [
        ("TRIAGE", codes.own(diagnosis.triage.name)),
        ("HIGH_RISK", yes if diagnosis.high_risk else no),
        ("TOP", codes.condition(diagnosis.top.condition)),
        *(("PREDICTION_SET", codes.condition(condition)) for condition in diagnosis.prediction_set),
    ]
    return [QualitativeEvaluation(codes.own(name), value) for name, value in pairs]


def _model(diagnosis: Diagnosis) -> str:
    """The bundle's name; where the service did not say it, the start of its digest."""
    return (diagnosis.bundle.name or diagnosis.bundle.digest[:12])[:64]


def _version() -> str:
    from importlib.metadata import version

    return version(NAME)
