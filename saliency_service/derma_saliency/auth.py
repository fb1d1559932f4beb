"""Auth middleware: a bearer token for every path but the probes.

app.add_middleware(TokenAuth, token="...")
"""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from derma_saliency.forms import drain

OPEN = ("/healthz", "/readyz")


class TokenAuth:
    """ASGI middleware that answers 401 to callers without the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN or self._authorised(scope):
            await self.app(scope, receive, send)
            return
        body = {"error": "AccessDenied", "message": "missing or invalid bearer token"}
        await JSONResponse(body, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
        await drain(Request(scope, receive))

    def _authorised(self, scope: Scope) -> bool:
        shown = Headers(scope=scope).get("authorization", "")
        return hmac.compare_digest(shown.encode(), self._expected)
