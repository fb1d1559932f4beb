"""Source of the photograph: a file, the camera, or a drawn sample.

if photo := chosen():
    photo.data, photo.picture
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import streamlit as st
from PIL import Image

from derma_semantics.app import texts
from derma_semantics.app.markup import box, show
from derma_semantics.domain.errors import InvalidImage
from derma_semantics.domain.formats import CLIENT_SUFFIXES
from derma_semantics.imaging.images import opened
from derma_semantics.imaging.synthetic import draw

SAMPLES = 6
SHOWN = 1000


@dataclass(frozen=True)
class Photo:
    """An image as it came, and as it is shown: upright, mode RGB, at most 1000 pixels a side."""

    digest: str
    data: bytes = field(repr=False)
    picture: Image.Image = field(repr=False, compare=False)
    size: tuple[int, int]


def chosen() -> Photo | None:
    """The photograph that the visitor chose; None where there is none, or it cannot be read."""
    source = st.segmented_control(
        "Image", list(SOURCES), default="Upload", required=True, label_visibility="collapsed", key="source"
    )
    data = SOURCES[source]()
    if data is None:
        return None
    digest = hashlib.sha256(data).hexdigest()
    photo: Photo | None = st.session_state.get("photo")
    if photo is None or photo.digest != digest:
        try:
            photo = st.session_state.photo = _opened(digest, data)
        except InvalidImage as exc:
            show(box("amber", texts.UNREADABLE, texts.sentence(exc)))
            return None
    return photo


def _uploaded() -> bytes | None:
    file = st.file_uploader("Dermoscopic photograph", type=list(CLIENT_SUFFIXES), key="upload")
    st.caption(texts.LIMITS)
    return file.getvalue() if file else None


def _taken() -> bytes | None:
    file = st.camera_input("Photograph through the dermatoscope", key="camera")
    return file.getvalue() if file else None


def _drawn() -> bytes:
    number: int = st.pills(
        "Picture", range(1, SAMPLES + 1), default=1, required=True, label_visibility="collapsed", key="sample"
    )
    st.caption(texts.SAMPLE)
    return sample(number)


@lru_cache(SAMPLES)
def sample(number: int) -> bytes:
    """A drawn picture as JPEG; the same number gives the same picture."""
    buffer = io.BytesIO()
    draw(number - 1).image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _opened(digest: str, data: bytes) -> Photo:
    image = opened(data)
    size = image.size
    image.thumbnail((SHOWN, SHOWN))
    return Photo(digest, data, image, size)


SOURCES: dict[str, Callable[[], bytes | None]] = {"Upload": _uploaded, "Camera": _taken, "Sample": _drawn}
