"""The image formats, and who reads them.

    SERVICE_SUFFIXES            # ('.jpg', '.jpeg', '.png', ...): what the server decodes
    CLIENT_SUFFIXES             # these, and those of which the client sends the pixels alone
    DICOM.begins(data)          # whether the data is DICOM, whatever the file's name

Everything that depends on a format's name or suffix derives from the tuple ``FORMATS``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Format:
    """One file format.

    Attributes:
        name: Pillow's, where the server reads it.
        suffixes: of its files, in lower case.
        signatures: bytes that tell the format, where any do; they stand at ``offset``.
        service: the server reads it. Otherwise the client does, and sends a PNG of its pixels.
    """

    name: str
    suffixes: tuple[str, ...]
    signatures: tuple[bytes, ...] = ()
    offset: int = 0
    service: bool = True

    def begins(self, data: bytes) -> bool:
        """Whether a file of this format begins so."""
        return data.startswith(self.signatures, self.offset)


JPEG = Format(name="JPEG", suffixes=(".jpg", ".jpeg", ".jfif"), signatures=(b"\xff\xd8\xff",))
PNG = Format(name="PNG", suffixes=(".png",), signatures=(b"\x89PNG\r\n\x1a\n",))
DICOM = Format(name="DICOM", suffixes=(".dcm", ".dicom"), signatures=(b"DICM",), offset=128, service=False)
# Still pictures in HEVC, by their brand: ISO/IEC 23008-12, annex B, and the general ones of clause 10.2.
HEIF = Format(
    name="HEIF",
    suffixes=(".heic", ".heif"),
    signatures=(b"ftypheic", b"ftypheix", b"ftypheim", b"ftypheis", b"ftypmif1", b"ftypmsf1"),
    offset=4,
    service=False,
)
FORMATS: tuple[Format, ...] = (
    JPEG,
    PNG,
    Format(name="WEBP", suffixes=(".webp",)),
    Format(name="TIFF", suffixes=(".tif", ".tiff"), signatures=(b"II*\0", b"MM\0*")),
    Format(name="BMP", suffixes=(".bmp",), signatures=(b"BM",)),
    DICOM,
    HEIF,
)

SERVICE_FORMATS: tuple[str, ...] = tuple(kind.name for kind in FORMATS if kind.service)
SERVICE_SUFFIXES: tuple[str, ...] = tuple(s for kind in FORMATS if kind.service for s in kind.suffixes)
CLIENT_SUFFIXES: tuple[str, ...] = tuple(suffix for kind in FORMATS for suffix in kind.suffixes)
