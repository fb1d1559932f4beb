"""New requests are refused, those under way end, and a server that hangs does not keep the launcher."""

import time

import pytest

from derma_semantics.domain.errors import DeadlineExceeded, ServiceUnavailable
from derma_serving.drain import drain


class FakeControl:
    """A server that is busy for a number of looks."""

    def __init__(self, busy=0, fails=None):
        self.busy, self.fails, self.calls, self.timeout = busy, fails, [], 0.0

    def unload(self, model):
        self.calls.append(f"unload {model}")
        if self.fails:
            raise self.fails

    def index(self):
        assert self.timeout >= 0
        if self.timeout == 0:
            raise DeadlineExceeded("no time left")
        self.calls.append("look")
        state = "UNLOADING" if self.busy > 0 else "UNAVAILABLE"
        self.busy -= 1
        others = {"name": "derma_preprocess", "version": "1", "state": "READY"}
        return [others, {"name": "derma_classifier", "version": "1", "state": state}]


def test_it_waits_for_the_last_request():
    control = FakeControl(busy=2)
    assert drain(control, time.monotonic() + 60)
    assert control.calls == ["unload derma_classifier", "look", "look", "look"]


def test_it_does_not_wait_for_ever():
    control = FakeControl(busy=1_000_000)
    assert not drain(control, time.monotonic() + 0.2)
    assert control.calls[0] == "unload derma_classifier"


@pytest.mark.parametrize("failure", [DeadlineExceeded("hangs"), ServiceUnavailable("not there yet")])
def test_a_server_that_does_not_answer(failure):
    control = FakeControl(fails=failure)
    assert not drain(control, time.monotonic() + 60)
    assert control.calls == ["unload derma_classifier"]
