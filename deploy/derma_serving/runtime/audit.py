"""Where an audit log is kept: the network answers only what it has written down.

Pixels come with a ticket of the image that they were made from, ``derma_serving.runtime.ticket``. What has
none is refused, as is what cannot be named; what cannot be written is not answered: the caller gets
UNAVAILABLE.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from derma_semantics.domain.contract import CLASSIFIER, PREPROCESS, TICKET
from derma_semantics.wire.request_id import HEADER, name, new
from derma_serving.runtime import ticket
from derma_serving.runtime.audit_log import AuditLog, entry

# As text: where Triton only completes configurations, its module lacks them.
Requests = list["pb_utils.InferenceRequest"]
Responses = list["pb_utils.InferenceResponse"]

# Exactly so: the proxy writes it, and Triton prefers its header to what a request says of itself.
CALLER = "derma-caller"
REFUSED = (
    f"this service keeps an audit log: ask {CLASSIFIER.name}. Pixels are answered only as "
    f"{PREPROCESS.name} made them, with its {TICKET}"
)
UNREADABLE = (
    "this service keeps an audit log, which names each question: its id, its parameters and its headers "
    f"{HEADER} and {CALLER} must be UTF-8"
)


@dataclass(frozen=True)
class Question:
    """A request that may be answered, and what is written of it."""

    request: pb_utils.InferenceRequest
    images: list[str]
    request_id: str
    caller: str | None


class Audit:
    """The log, and who may be answered."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.log = AuditLog(Path(os.environ["DERMA_AUDIT_LOG"]))
        self.warm_ups = sum(int(sample.get("count") or 1) for sample in config.get("model_warmup", []))

    def answer(self, requests: Requests, run: Callable[[Requests], Responses]) -> Responses:
        if self.warm_ups:  # Triton's own come first, have no ticket and must not fail; they get nothing
            self.warm_ups -= 1
            run(requests)
            return [pb_utils.InferenceResponse([]) for _ in requests]
        asked = [_question(request) for request in requests]
        known = [one for one in asked if isinstance(one, Question)]
        answers = iter(self._written(known, run([one.request for one in known])) if known else [])
        return [next(answers) if isinstance(one, Question) else _error(one, "INVALID_ARG") for one in asked]

    def close(self) -> None:
        self.log.close()

    def _written(self, known: list[Question], answers: Responses) -> Responses:
        try:
            self.log.append(line for pair in zip(known, answers) for line in _lines(*pair))
        except Exception as exc:
            # An error's own text may quote what was sent; that of the system names what is full or missing.
            reason = exc.strerror if isinstance(exc, OSError) else type(exc).__name__
            message = f"the audit log cannot be written, so there is no answer: {reason}"
            return [_error(message, "UNAVAILABLE") for _ in answers]
        return answers


def _question(request: pb_utils.InferenceRequest) -> Question | str:
    """It, or why it alone is refused."""
    images = _images(request)
    if not images:
        return REFUSED
    try:
        told = json.loads(request.parameters() or "{}")
        headers = {key.lower(): value for key, value in told.items()}
        request_id = name(request.request_id()) or name(headers.get(HEADER)) or new()
    except Exception:  # over HTTP they may be any bytes
        return UNREADABLE
    return Question(request, images, request_id, told.get(CALLER))


def _images(request: pb_utils.InferenceRequest) -> list[str]:
    """Digests of the images; none where one has no ticket, or a wrong one."""
    tickets = pb_utils.get_input_tensor_by_name(request, TICKET)
    if tickets is None:
        return []
    pixels = pb_utils.get_input_tensor_by_name(request, "PIXELS").as_numpy()
    found = [ticket.redeem(*pair) for pair in zip(tickets.as_numpy(), pixels)]
    return [one for one in found if one] if None not in found else []


def _lines(question: Question, answer: pb_utils.InferenceResponse) -> Iterator[dict[str, object]]:
    given = {tensor.name(): tensor.as_numpy() for tensor in answer.output_tensors()}
    rows = zip(question.images, given["BUNDLE"], given["PROBABILITIES"], given["TRIAGE"].ravel())
    for image, bundle, probabilities, triage in rows:
        yield entry(
            question.request_id,
            image,
            bundle.tobytes(),
            probabilities.tolist(),
            int(triage),
            question.caller,
        )


def _error(message: str, code: str) -> pb_utils.InferenceResponse:
    return pb_utils.InferenceResponse(
        error=pb_utils.TritonError(message, getattr(pb_utils.TritonError, code))
    )
