"""The sidecar's HTTP: POST /v1/saliency, probes and metrics.

    app = create_app(Explainer.from_bundle(bundle), Limits(), served=None)

Nothing of images, file names or prompts is logged, kept or written to the disk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from derma_saliency.admission import AdmissionControl
from derma_saliency.answers import FORMATS
from derma_saliency.auth import TokenAuth
from derma_saliency.explainer import Explainer, check_method
from derma_saliency.forms import SCHEMA, Form, NotAForm, SlowBody, drain, read_form
from derma_saliency.observe import Observed
from derma_saliency.readiness import Readiness, Served
from derma_saliency.texts import check_text
from derma_semantics.domain.errors import (
    DeadlineExceeded,
    DermaError,
    ImageTooLarge,
    InvalidImage,
    InvalidRequest,
    Overloaded,
    UnsupportedFormat,
)
from derma_semantics.saliency import PATH, Explanation
from derma_semantics.wire.request_id import HEADER, name, new

log = logging.getLogger("derma_saliency")

# The first that fits counts.
STATUS: tuple[tuple[type[DermaError], int], ...] = (
    (ImageTooLarge, 413),
    (UnsupportedFormat, 415),
    (NotAForm, 415),
    (SlowBody, 408),
    (InvalidImage, 400),
    (InvalidRequest, 422),
    (Overloaded, 503),
    (DeadlineExceeded, 504),
)
RETRY_AFTER = "1"


@dataclass(frozen=True)
class Limits:
    """Bounds of the service.

    Attributes:
        in_flight: requests in flight; one of them is computed, the others are read or wait.
        seconds: that a request may take.
    """

    in_flight: int = 8
    seconds: float = 30.0


def create_app(
    explainer: Explainer, limits: Limits, served: Served | None, token: str | None = None
) -> FastAPI:
    """The sidecar as an ASGI application.

    Args:
        served: reads from Triton which bundle it serves.
        token: required of callers as ``Authorization: Bearer``; None: no authentication.
    """
    admission, observed = AdmissionControl(limits.in_flight, limits.seconds), Observed()
    observed.in_flight.set_function(lambda: admission.in_flight)
    readiness = Readiness(explainer, served)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        admission.close()

    app = FastAPI(
        title="Derma-Semantics saliency", description="Which pixels speak for a text.", lifespan=life
    )
    if token is not None:
        app.add_middleware(TokenAuth, token=token)

    @app.post(PATH, openapi_extra=SCHEMA, response_class=Response)
    async def saliency(request: Request) -> Response:
        """A heat map for a prompt or a condition: png (overlay), json or npy."""
        begin = time.monotonic()
        request_id = name(request.headers.get(HEADER)) or new()
        named = {"request_id": request_id}
        try:
            answer = await _answer(request, explainer, admission, observed)
            outcome = "ok"
        except DermaError as exc:
            answer, outcome = _refusal(exc), _name(exc)
            await drain(request)
        except ClientDisconnect:
            answer, outcome = Response(status_code=499), "Disconnected"
        except Exception as exc:
            # Without the message, which may quote what was sent.
            log.error("failed: %s", type(exc).__name__, extra=named)
            answer, outcome = _failure(), "ServiceError"
        observed.requests.labels(outcome).inc()
        log.info("%s %s %.0f ms", PATH, outcome, 1000 * (time.monotonic() - begin), extra=named)
        answer.headers[HEADER] = request_id
        return answer

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """The weights that are explained, compared with Triton's; 503 where they differ."""
        status, report = await readiness.check()
        return JSONResponse(report, status)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(observed.text(), media_type="text/plain; version=0.0.4")

    return app


async def _answer(
    request: Request, explainer: Explainer, admission: AdmissionControl, observed: Observed
) -> Response:
    async with admission.admit() as in_flight:
        with observed.stage("read"):
            form = await read_form(request)
        check_text(form.prompt, form.condition)
        check_method(form.method)
        explanation, body = await in_flight.compute(_computed, explainer, form, observed)
    observed.stages.labels("queue").observe(in_flight.queued)
    media_type, _ = FORMATS[form.format]
    about = {"Derma-Method": explanation.method, "Derma-Bundle-Digest": explanation.bundle_digest}
    return Response(body, media_type=media_type, headers=about)


def _computed(explainer: Explainer, form: Form, observed: Observed) -> tuple[Explanation, bytes]:
    with observed.stage("explain"):
        explanation = explainer.explain(
            form.image, prompt=form.prompt, condition=form.condition, method=form.method
        )
    with observed.stage("render"):
        _, write = FORMATS[form.format]
        return explanation, write(explanation, form.image)


def _refusal(error: DermaError) -> JSONResponse:
    status = next((code for kind, code in STATUS if isinstance(error, kind)), 500)
    headers = {"Retry-After": RETRY_AFTER} if status == 503 else {}
    return JSONResponse({"error": _name(error), "message": str(error)}, status, headers)


def _failure() -> JSONResponse:
    return JSONResponse({"error": "ServiceError", "message": "the sidecar failed while it answered"}, 500)


def _name(error: DermaError) -> str:
    """The class's name in ``errors``, of a private one its parent's."""
    return next(c.__name__ for c in type(error).__mro__ if c.__module__ == DermaError.__module__)
