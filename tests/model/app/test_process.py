"""The app's process: its web server's settings, uploads in memory, and no model code."""

import asyncio
import subprocess
import sys

from starlette.formparsers import MultiPartParser
from starlette.requests import Request

from derma_semantics import app
from derma_semantics.domain.contract import MAX_ENCODED_BYTES


def test_settings_equal_the_contract_s():
    settings = app.options(9000)
    assert settings["server.maxUploadSize"] * 2**20 == MAX_ENCODED_BYTES
    assert settings["server.address"] == "127.0.0.1"
    assert settings["browser.gatherUsageStats"] == "false"


def test_uploads_stay_in_memory(monkeypatch):
    """Up to the limit, though the web server would spool them to a file."""

    def rolled_to_disk():
        data = bytes(MAX_ENCODED_BYTES)
        head = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.jpg"\r\n\r\n'
        body = {"type": "http.request", "body": head + data + b"\r\n--x--\r\n", "more_body": False}
        kind = (b"content-type", b"multipart/form-data; boundary=x")
        scope = {"type": "http", "method": "PUT", "headers": [kind]}

        async def read():
            async def receive():
                return body

            form = await Request(scope, receive).form()
            return form["f"].file._rolled

        return asyncio.run(read())

    monkeypatch.setattr(MultiPartParser, "spool_max_size", 2**20)
    assert rolled_to_disk()
    app.keep_uploads_in_memory()
    assert not rolled_to_disk()


def test_the_app_has_no_model_code():
    code = (
        "import sys, derma_semantics.app.page\n"
        "print([m for m in ('torch', 'derma_training', 'derma_export', 'onnxruntime') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert result.stdout.strip() == "[]"
