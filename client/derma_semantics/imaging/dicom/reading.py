"""The picture of a DICOM file, as a Pillow image.

    image = to_image(Path("lesion.dcm").read_bytes())

Colours as the file states them: RGB, YBR, palette or grey. Grey and 16-bit values keep their high
bits, as those of PNG and TIFF do; display windows (VOI LUT) are not applied.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from derma_semantics.domain.errors import CorruptImage, UnsupportedFormat
from derma_semantics.imaging.dicom.files import JPEG, JPEG_2000, UNCOMPRESSED, boundary, is_dicom, read
from derma_semantics.imaging.preprocess import check_encoded, check_size

__all__ = ["is_dicom", "to_image"]

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PALETTE = "PALETTE COLOR"

# Nothing else of a file is parsed, so the patient's attributes stay unread.
_LUTS = [
    f"{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for part in ("Descriptor", "Data")
]
_ATTRIBUTES = [
    "SOPClassUID",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "BurnedInAnnotation",
    "RecognizableVisualFeatures",
    *_LUTS,
    *(f"Segmented{name}" for name in _LUTS if name.endswith("Data")),
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelData",
]


# Image Pixel Module, PS3.3 table C.7-11a.
_NEEDED = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)


def to_image(data: bytes) -> Image.Image:
    """The one picture that a DICOM file holds, mode RGB, at its own size, without any metadata.

    Args:
        data: a DICOM file: Dermoscopic Photography, VL Photographic or Secondary Capture.

    Raises:
        InvalidImage: one of its subclasses, naming the problem and the limit. Also where the file
            says that the picture itself shows who the patient is.
    """
    dataset = read(data, _ATTRIBUTES)
    with boundary("the DICOM file is truncated or damaged"):
        _check(dataset)
        return Image.fromarray(_rgb(dataset))


def _check(dataset: Any) -> None:
    """Everything that the header alone decides."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise UnsupportedFormat(
            f"the DICOM file has {frames} frames; the limit is 1: "
            "save the frame to classify as a file of its own"
        )
    for attribute in ("BurnedInAnnotation", "RecognizableVisualFeatures"):
        if dataset.get(attribute) == "YES":
            raise UnsupportedFormat(
                f"the DICOM file says {attribute} = YES, so its pixels may show who the patient is; "
                "mask them and set it to NO"
            )
    if "PixelData" not in dataset:
        raise CorruptImage("the DICOM file has no pixel data, or ends before it")
    if missing := _missing(dataset):
        raise CorruptImage(f"the DICOM file lacks the attribute {missing}")
    check_size((int(dataset.Columns), int(dataset.Rows)))
    colours = str(dataset.PhotometricInterpretation)
    if colours not in (*GREY, *COLOUR, PALETTE):
        raise UnsupportedFormat(
            "the DICOM photometric interpretation is not supported; it may be "
            + ", ".join((*GREY, *COLOUR, PALETTE))
        )
    if dataset.SamplesPerPixel != (3 if colours in COLOUR else 1):
        raise CorruptImage(
            f"the DICOM file has {int(dataset.SamplesPerPixel)} samples per pixel in {colours}"
        )
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if allocated not in (8, 16) or not 8 <= stored <= allocated or dataset.PixelRepresentation != 0:
        raise UnsupportedFormat(
            f"the DICOM pixels have {allocated} bits, {stored} of them used, "
            f"{'signed' if dataset.PixelRepresentation else 'unsigned'}; "
            "supported are 8 or 16 bits, 8 or more of them used, unsigned"
        )
    if dataset.HighBit != stored - 1:
        raise UnsupportedFormat(
            f"the DICOM HighBit is {int(dataset.HighBit)}; supported is {stored - 1}, BitsStored less one"
        )


def _missing(dataset: Any) -> str | None:
    """The first attribute that is needed to read the pixels and is not there, or is empty."""
    return next((name for name in _NEEDED if dataset.get(name) is None), None) or _missing_order(dataset)


def _missing_order(dataset: Any) -> str | None:
    """Several samples a pixel can lie in two orders."""
    several, name = int(dataset.SamplesPerPixel) > 1, "PlanarConfiguration"
    return name if several and dataset.get(name) is None else None


def _rgb(dataset: Any) -> NDArray[np.uint8]:
    """Shape (rows, columns, 3)."""
    from pydicom.pixels import apply_color_lut

    colours, bits = str(dataset.PhotometricInterpretation), int(dataset.BitsStored)
    values = _stored_values(dataset)
    if colours == PALETTE:
        values = apply_color_lut(values, dataset)
        bits = 8 * values.itemsize
    pixels: NDArray[np.uint8] = (values >> (bits - 8)).clip(max=255).astype(np.uint8)
    if colours == "MONOCHROME1":
        pixels = 255 - pixels
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def _stored_values(dataset: Any) -> NDArray[Any]:
    """What was stored, of ``BitsStored`` bits; YBR as RGB. Shape (rows, columns) or (rows, columns, 3)."""
    from pydicom.pixels import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in UNCOMPRESSED:
        check_encoded(dataset.PixelData)
    if syntax == JPEG or syntax in JPEG_2000:
        return _decompressed(dataset)
    values: NDArray[Any] = pixel_array(dataset)
    return values


def _decompressed(dataset: Any) -> NDArray[Any]:
    """Through Pillow, so that a JPEG gives the pixels that it gives as a file."""
    from pydicom.encaps import get_frame

    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    image = Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000"))
    size = (int(dataset.Columns), int(dataset.Rows))
    if image.size != size:  # before a small header makes room for a huge picture
        raise CorruptImage(
            f"the DICOM header says {size[0]} x {size[1]}, its {image.format} stream "
            f"{image.size[0]} x {image.size[1]}"
        )
    modes = ("RGB",) if dataset.SamplesPerPixel == 3 else ("L", "I;16")
    if image.mode not in modes or (image.mode != "I;16" and dataset.BitsStored != 8):
        raise UnsupportedFormat(
            f"a {image.format} stream of mode {image.mode} with {int(dataset.BitsStored)} bits "
            "is not supported"
        )
    values = np.asarray(_colours_as_stated(image, str(dataset.PhotometricInterpretation)))
    # Pillow scales grey values of 9 to 15 bits up to 16.
    return values >> (8 * values.itemsize - int(dataset.BitsStored))


def _colours_as_stated(image: Image.Image, colours: str) -> Image.Image:
    """Where the codec's guess and the header differ, the header is right."""
    marked = "jfif" in image.info or "adobe" in image.info
    if image.format == "JPEG" and colours == "RGB" and not marked:
        image.draft("YCbCr", image.size)  # the components as they are, not taken for YBR
    elif image.format == "JPEG2000" and colours.startswith("YBR_FULL"):
        return Image.frombytes("YCbCr", image.size, image.tobytes()).convert("RGB")
    return image
