"""Photographs as DICOM files, with a patient whom nothing else may name."""

import io

import numpy as np
from pydicom import Dataset, FileMetaDataset, dcmwrite, uid
from pydicom.encaps import encapsulate

from derma_semantics.imaging.synthetic import draw

DERMOSCOPY = uid.DermoscopicPhotographyImageStorage
NAME, IDENTITY, STUDY = "Nightingale^Florence", "PAT-18200512", "1.2.826.0.1.3680043.8.498.18200512"
PATIENT = {
    "PatientName": NAME,
    "PatientID": IDENTITY,
    "PatientBirthDate": "18200512",
    "StudyInstanceUID": STUDY,
    "StudyDate": "19100813",
}
SECRETS = (NAME, "Nightingale", IDENTITY, "18200512", "19100813", STUDY)


def rgb(seed=0, size=(60, 45)):
    return draw(seed, size).image


def dataset(pixels, colours="RGB", **attributes):
    """An uncompressed dermoscopic photograph of these pixels, with a patient."""
    pixels = np.asarray(pixels)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = DERMOSCOPY, uid.generate_uid()
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = colours
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = 0
    ds.PixelData = pixels.tobytes()
    for name, value in (PATIENT | attributes).items():
        setattr(ds, name, value)
    return ds


def compressed(ds, syntax, frame):
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    return ds


def saved(ds, **options):
    file = io.BytesIO()
    dcmwrite(file, ds, enforce_file_format=True, **options)
    return file.getvalue()


def stream(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()
