"""Log lines as JSON and text; request ids of the client."""

import json
import logging

import pytest

from derma_semantics import DermaClient
from derma_semantics.domain.errors import CorruptImage
from derma_semantics.wire.logs import JsonLines, TextLines

RECORD = {"name": "derma", "levelname": "INFO", "levelno": 20, "msg": "failed: %s", "args": ("CorruptImage",)}


def record(**more):
    return logging.makeLogRecord({**RECORD, **more})


def test_a_json_line():
    line = json.loads(JsonLines("saliency").format(record(request_id="r1")))
    assert line.pop("time").endswith("+00:00")
    expected = {"level": "info", "part": "saliency", "event": "failed: CorruptImage", "request_id": "r1"}
    assert line == expected
    assert "request_id" not in json.loads(JsonLines("client").format(record(msg="two\nlines", args=())))


def test_a_text_line():
    assert TextLines("%(message)s").format(record(request_id="r1")) == "failed: CorruptImage  request r1"
    assert TextLines("%(message)s").format(record()) == "failed: CorruptImage"


class Transport:
    def __init__(self, *failures):
        self.ids, self.failures = [], list(failures)

    def infer(self, image, timeout, request_id):
        self.ids.append(request_id)
        raise self.failures.pop(0)

    def close(self):
        pass


def test_errors_carry_the_id_that_was_sent_and_the_log_says_no_more(caplog):
    caplog.set_level(logging.INFO, "derma_semantics")
    transport = Transport(CorruptImage("Erika's image"), CorruptImage("Erika's image"))
    with DermaClient(transport=transport) as client:
        with pytest.raises(CorruptImage) as drawn:
            client.classify(b"x")
        with pytest.raises(CorruptImage) as own:
            client.classify(b"x", request_id="study-7.image-3")
    assert transport.ids == [drawn.value.request_id, own.value.request_id]
    assert (len(transport.ids[0]), transport.ids[1]) == (32, "study-7.image-3")
    said = [(one.getMessage(), one.request_id) for one in caplog.records]
    assert said == [("failed: CorruptImage", one) for one in transport.ids]


@pytest.mark.parametrize(("image", "request_id"), [(b"x", "Erika Mustermann"), (b"x", ""), ([b"x"], "one")])
def test_ids_that_cannot_be_are_refused(image, request_id):
    with DermaClient(transport=Transport()) as client, pytest.raises(ValueError, match="request id"):
        client.classify(image, request_id=request_id)
