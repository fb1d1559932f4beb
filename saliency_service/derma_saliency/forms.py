"""The multipart form of a request, read in bounds and kept in memory.

form = await read_form(request)
form.image, form.prompt, form.format
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from derma_saliency.answers import DEFAULT_FORMAT, FORMATS
from derma_semantics.domain.contract import MAX_ENCODED_BYTES
from derma_semantics.domain.errors import ImageTooLarge, InvalidRequest

FIELDS = ("prompt", "condition", "method", "format")
# What stands around the image: boundaries, part headers and the texts.
MAX_BODY = MAX_ENCODED_BYTES + 2**16
DRAIN_SECONDS = 2.0
# A body that is slower keeps others from their turn. A photograph of 250 KiB may take 6 s.
PATIENCE = 2.0  # seconds
MIN_RATE = 64 * 2**10  # bytes a second
BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046, section 5.1.1

Pieces: TypeAlias = AsyncGenerator[bytes, None]

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


class SlowBody(InvalidRequest):
    """The body comes so slowly that it would hold a place for nothing."""


@dataclass(frozen=True)
class Form:
    """The fields of a request."""

    image: bytes
    prompt: str | None
    condition: str | None
    method: str | None
    format: str


class _InMemory(MultiPartParser):
    """Never writes an image to the disk.

    Attributes:
        closed: whether the closing boundary was seen.
    """

    spool_max_size = MAX_BODY
    closed = False

    def on_end(self) -> None:
        self.closed = True


async def read_form(request: Request) -> Form:
    """Read the body, refusing too large a one before and while it comes.

    Raises:
        ImageTooLarge: more than 20 MiB.
        NotAForm, InvalidRequest: no multipart form, or not one with an image.
    """
    boundary = _boundary(request.headers.get("content-type", ""))
    if int(request.headers.get("content-length", 0)) > MAX_BODY:
        raise _too_large()
    headers = Headers({"content-type": f'multipart/form-data; boundary="{boundary}"'})
    try:
        async with asyncio.timeout(PATIENCE) as deadline:
            pieces = _in_time(_bounded(request), deadline)
            parser = _InMemory(headers, pieces, max_files=1, max_fields=len(FIELDS))
            form = await parser.parse()
    except TimeoutError as exc:
        raise SlowBody(f"the body came at less than {MIN_RATE >> 10} KiB a second") from exc
    except (MultiPartException, KeyError, UnicodeError) as exc:
        raise InvalidRequest(f"the form cannot be read: {exc}") from exc
    try:
        if not parser.closed:
            raise InvalidRequest("the form ends before its closing boundary")
        return await _fields(form)
    finally:
        await form.close()


def _boundary(content_type: str) -> str:
    """The boundary of a form in UTF-8, the only charset there is here (RFC 7578, section 5.1.2).

    Raises:
        NotAForm: another media type, or no boundary.
        InvalidRequest: another charset: Python would decode each field with whatever codec is named.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"").decode("latin-1")
    if kind.lower() != b"multipart/form-data" or not BOUNDARY.fullmatch(boundary):
        raise NotAForm("send multipart/form-data with an image and a prompt or a condition")
    if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):
        raise InvalidRequest("the form's charset must be UTF-8")
    return boundary


async def _in_time(
    pieces: AsyncGenerator[bytes, None], deadline: asyncio.Timeout
) -> AsyncGenerator[bytes, None]:
    """The pieces of a body; each moves the deadline on, at the lowest rate that is accepted."""
    loop = asyncio.get_running_loop()
    begin, total = loop.time(), 0
    async for piece in pieces:
        total += len(piece)
        deadline.reschedule(begin + PATIENCE + total / MIN_RATE)
        yield piece


async def drain(request: Request) -> None:
    """Take in and drop what is left of a refused body: a client that still sends would miss the answer."""
    with suppress(ClientDisconnect, RuntimeError, TimeoutError, ImageTooLarge):  # Runtime: all was read
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in _bounded(request):
                pass


async def _bounded(request: Request) -> Pieces:
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
    names = [name for name, _ in form.multi_items()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidRequest(f"the field {twice[:40]!r} stands twice")
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
