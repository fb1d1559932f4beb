"""DICOM: photographs in, Structured Reports out. Needs pip install 'derma-semantics[dicom]'.

    from derma_semantics.imaging import dicom
    image = dicom.to_image(Path("lesion.dcm").read_bytes())              # a Pillow image, mode RGB
    dicom.write_report("lesion.dcm", client.classify("lesion.dcm"), "reports")

The client sends the pixels of a DICOM file and nothing else of it: ``to_image`` does not even
read who the patient is. No error and no log message of this package holds an attribute of the patient.
"""

from derma_semantics.imaging.dicom.reading import is_dicom, to_image
from derma_semantics.imaging.dicom.reports import report, write_report

__all__ = ["is_dicom", "report", "to_image", "write_report"]
