"""Multipart forms: charsets, cases, endings, repeated fields and bodies that stall."""

import asyncio
import time

import httpx
import pytest
from fastapi import FastAPI, Request

from derma_saliency import forms
from derma_saliency.app import STATUS
from derma_semantics.domain.errors import DermaError

FORM = (
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\npixels\r\n'
    b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nmelanoma\r\n--b--\r\n'
)


async def post(content, content_type="multipart/form-data; boundary=b"):
    """Status and message of a service that only reads the form."""
    app = FastAPI()

    @app.post("/")
    async def read(request: Request):
        try:
            form = await forms.read_form(request)
        except DermaError as exc:
            return {"status": next(code for kind, code in STATUS if isinstance(exc, kind)), "says": str(exc)}
        return {"status": 200, "says": f"{form.image!r} {form.prompt}"}

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as http:
        answer = (await http.post("/", content=content, headers={"content-type": content_type})).json()
    return answer["status"], answer["says"]


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=b",
        "Multipart/Form-Data; boundary=b",
        'multipart/form-data; boundary="b"; charset=UTF-8',
        "multipart/form-data; charset=utf8; boundary=b",
    ],
)
async def test_forms_that_are_read(content_type):
    assert await post(FORM, content_type) == (200, "b'pixels' melanoma")


@pytest.mark.parametrize("charset", ["punycode", "idna", "utf-16", "latin-1", "unicode_escape", "rot13", ""])
async def test_another_charset_is_refused_before_it_decodes(charset):
    body = FORM.replace(b'name="prompt"', b'name="' + b"a" * 150_000 + b'"')
    began = time.process_time()
    status, says = await post(body, f"multipart/form-data; boundary=b; charset={charset}")
    assert (status, says) == (422, "the form's charset must be UTF-8")
    assert time.process_time() - began < 1.0


async def test_field_names_that_are_not_utf8_are_refused():
    status, says = await post(FORM.replace(b'name="prompt"', b'name="\xff\xfe"'))
    assert status == 422
    assert says.startswith("unknown field")


@pytest.mark.parametrize("cut", [4, 7, 34])
async def test_a_form_without_its_closing_boundary_is_refused(cut):
    status, says = await post(FORM[:-cut])
    assert (status, says) == (422, "the form ends before its closing boundary")


@pytest.mark.parametrize("name", ["prompt", "image"])
async def test_a_field_that_stands_twice_is_refused(name):
    parts = FORM.removesuffix(b"--b--\r\n").split(b"--b\r\n")[1:]
    again = next(part for part in parts if name.encode() in part)
    status, says = await post(b"--b\r\n" + b"--b\r\n".join([*parts, again]) + b"--b--\r\n")
    assert status == 422
    assert "twice" in says or "Too many files" in says


async def test_a_body_that_stalls_gives_its_place_back(monkeypatch):
    monkeypatch.setattr(forms, "PATIENCE", 0.2)

    async def stalled():
        yield FORM[:40]
        await asyncio.sleep(30)

    began = time.monotonic()
    assert await post(stalled()) == (408, "the body came at less than 64 KiB a second")
    assert time.monotonic() - began < 10


async def test_a_slow_body_above_the_lowest_rate_is_read(monkeypatch):
    monkeypatch.setattr(forms, "PATIENCE", 0.5)
    image = bytes(2**17)

    async def slow():
        head, tail = FORM.split(b"pixels")
        yield head
        for start in range(0, len(image), 2**15):
            await asyncio.sleep(0.2)
            yield image[start : start + 2**15]
        yield tail

    status, says = await post(slow())
    assert status == 200
    assert says.endswith("melanoma")
