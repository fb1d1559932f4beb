"""An answer of the service as a DICOM Structured Report, beside the photograph in its study.

    path = write_report("lesion.dcm", client.classify("lesion.dcm"), "reports")

A Comprehensive SR with template TID 1500, Measurement Report: one measurement group with the seven
probabilities and RISK as numbers, the rest as coded evaluations. It refers to the photograph, copies
its patient and study, and stays preliminary and unverified: no person has seen it.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from derma_semantics.domain.conditions import CONDITIONS
from derma_semantics.domain.contract import NOTICE
from derma_semantics.domain.diagnosis import Diagnosis
from derma_semantics.domain.errors import CorruptImage
from derma_semantics.imaging.dicom import codes
from derma_semantics.imaging.dicom.files import DERMOSCOPIC_PHOTOGRAPHY, boundary, read, silence

NAME = "derma-semantics"
INVALID = "an attribute of the DICOM file is not valid, so no report can copy it"

_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
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
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
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
    for attribute in _UIDS:
        if not image.get(attribute):
            raise CorruptImage(f"the DICOM file has no {attribute}, so no report can refer to it")
    for attribute in _MAY_BE_EMPTY:
        if attribute not in image:
            setattr(image, attribute, "")
    return image


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
