"""Every error this package raises.

    DermaError
    ├── InvalidImage            the image cannot be classified; says why
    │   ├── EmptyImage
    │   ├── UnsupportedFormat
    │   ├── CorruptImage        truncated or damaged
    │   ├── ImageTooLarge       too many bytes or pixels
    │   ├── ImageTooSmall
    │   ├── ImageTooNarrow      a strip, not a photograph
    │   └── ImageTooComplex     takes too long to decode
    ├── InvalidRequest          the server refused the request for another reason
    │   └── AccessDenied        no token or certificate, or one without the right
    ├── ServiceError            the server failed while it answered
    ├── ServiceUnavailable      no server, or the model is not ready
    │   └── Overloaded          the queue is full: try later
    └── DeadlineExceeded        no answer in time

An image error crosses the wire as ``<class name>: <sentence>``, so that the
client raises the same class that the server's preprocessing raised.
"""

from __future__ import annotations

import re


class DermaError(Exception):
    """Base of all errors of Derma-Semantics.

    Attributes:
        request_id: which question failed, by the id that all logs have; None where none was asked.
    """

    request_id: str | None = None


class InvalidImage(DermaError):
    """The image cannot be classified."""


class EmptyImage(InvalidImage):
    """The image has no bytes."""


class UnsupportedFormat(InvalidImage):
    """The bytes are not an image in a supported format."""


class CorruptImage(InvalidImage):
    """The image is truncated or damaged."""


class ImageTooLarge(InvalidImage):
    """The image exceeds the limit of bytes or pixels."""


class ImageTooSmall(InvalidImage):
    """A side of the image is below the limit."""


class ImageTooNarrow(InvalidImage):
    """One side of the image is many times the other."""


class ImageTooComplex(InvalidImage):
    """The image takes too long to decode, whatever its size."""


class InvalidRequest(DermaError):
    """The server refused the request."""


class AccessDenied(InvalidRequest):
    """The server does not serve this caller: the token or certificate is missing, wrong or expired."""


class ServiceError(DermaError):
    """The server failed while it answered."""


class ServiceUnavailable(DermaError):
    """The server cannot be reached or its model is not ready."""


class Overloaded(ServiceUnavailable):
    """The server's queue is full."""


class DeadlineExceeded(DermaError):
    """The answer did not come in time."""


_IMAGE_ERRORS = {cls.__name__: cls for cls in InvalidImage.__subclasses__()}
_WIRE = re.compile(rf"\b({'|'.join(_IMAGE_ERRORS)}): (.*)", re.DOTALL)


def to_wire(error: InvalidImage) -> str:
    """The message that carries ``error`` through Triton."""
    return f"{type(error).__name__}: {error}"


def from_wire(message: str) -> InvalidImage | None:
    """The image error that ``message`` carries, or None if it carries none."""
    match = _WIRE.search(message)
    return _IMAGE_ERRORS[match[1]](match[2]) if match else None
