"""The multipart form of a request, read in bounds and kept in memory.

form = await read_form(request)
form.image, form.prompt, form.format
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from derma_saliency.answers import DEFAULT_FORMAT, FORMATS
from derma_semantics.domain.contract import MAX_ENCODED_BYTES
from derma_semantics.domain.errors import ImageTooLarge, InvalidRequest

FIELDS = ("prompt", "condition", "method", "format")
# What stands around the image: boundaries, part headers and the texts.
MAX_BODY = MAX_ENCODED_BYTES + 2**16
DRAIN_SECONDS = 2.0

SCHEMA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "prompt": {"type": "string", "description": "free text; or else `condition`"},
                        "condition": {"type": "string", "description": "a condition's code, e.g. MEL"},
                        "method": {"type": "string", "description": "one of those that /readyz lists"},
                        "format": {"type": "string", "enum": list(FORMATS), "default": DEFAULT_FORMAT},
                    },
                }
            }
        },
    }
}


class NotAForm(InvalidRequest):
    """The body is of another media type than multipart/form-data."""


@dataclass(frozen=True)
class Form:
    """The fields of a request."""

    image: bytes
    prompt: str | None
    condition: str | None
    method: str | None
    format: str


class _InMemory(MultiPartParser):
    """Never writes an image to the disk."""

    spool_max_size = MAX_BODY


async def read_form(request: Request) -> Form:
    """Read the body, refusing too large a one before and while it comes.

    Raises:
        ImageTooLarge: more than 20 MiB.
        NotAForm, InvalidRequest: no multipart form, or not one with an image.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise NotAForm("send multipart/form-data with an image and a prompt or a condition")
    if int(request.headers.get("content-length", 0)) > MAX_BODY:
        raise _too_large()
    parser = _InMemory(request.headers, _bounded(request), max_files=1, max_fields=len(FIELDS))
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"the form cannot be read: {exc}") from exc
    try:
        return await _fields(form)
    finally:
        await form.close()


async def drain(request: Request) -> None:
    """Take in and drop what is left of a refused body: a client that still sends would miss the answer."""
    with suppress(ClientDisconnect, RuntimeError, TimeoutError, ImageTooLarge):  # Runtime: all was read
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in _bounded(request):
                pass


async def _bounded(request: Request) -> AsyncGenerator[bytes, None]:
    total = 0
    async for piece in request.stream():
        total += len(piece)
        if total > MAX_BODY:
            raise _too_large()
        yield piece


async def _fields(form: FormData) -> Form:
    image = form.get("image")
    if not isinstance(image, UploadFile):
        raise InvalidRequest("the form holds no file named image")
    if unknown := sorted(set(form) - {"image", *FIELDS}):
        raise InvalidRequest(f"unknown field {unknown[0][:40]!r}: expected image, {', '.join(FIELDS)}")
    texts = {name: _text(form, name) for name in FIELDS}
    answer = texts.pop("format") or DEFAULT_FORMAT
    if answer not in FORMATS:
        raise InvalidRequest(f"unknown format: expected one of {', '.join(FORMATS)}")
    return Form(await image.read(), **texts, format=answer)


def _text(form: FormData, name: str) -> str | None:
    value = form.get(name)
    if isinstance(value, UploadFile):
        raise InvalidRequest(f"{name} must be text")
    return value


def _too_large() -> ImageTooLarge:
    return ImageTooLarge(f"the request is larger than the limit of {MAX_ENCODED_BYTES >> 20} MiB")
