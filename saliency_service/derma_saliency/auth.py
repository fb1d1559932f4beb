"""Lets in only callers who show the token. Probes, which have none, may ask whether it is ready.

app.add_middleware(Door, token="...")
"""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from derma_saliency.forms import drain

OPEN = ("/healthz", "/readyz")


class Door:
    """ASGI middleware that answers 401 to whom it does not know."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN or self._known(scope):
            await self.app(scope, receive, send)
            return
        refusal = {"error": "AccessDenied", "message": "no token, or another one"}
        await JSONResponse(refusal, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
        await drain(Request(scope, receive))

    def _known(self, scope: Scope) -> bool:
        shown = Headers(scope=scope).get("authorization", "")
        return hmac.compare_digest(shown.encode(), self._expected)
