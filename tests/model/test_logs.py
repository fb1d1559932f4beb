"""The client's log, in a process and with a service of its own."""

import subprocess
import sys

from derma_semantics import DermaClient


def test_the_service_and_the_answer_name_the_same_id(kserve):
    service, port, _ = kserve()
    with DermaClient(f"127.0.0.1:{port}") as client:
        assert client.classify(b"x", request_id="mine").request_id == "mine"
        ids = [answer.request_id for answer in client.classify([b"x", b"y"])]
    assert service.ids[0] == "mine"
    assert sorted(service.ids[1:]) == sorted(ids) and len(set(ids)) == 2


def test_an_unknown_format_is_refused(monkeypatch):
    command = [sys.executable, "-m", "derma_semantics", "classify", __file__]
    monkeypatch.setenv("DERMA_LOG_FORMAT", "xml")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "DERMA_LOG_FORMAT must be one of text, json" in done.stderr) == (2, True)
