"""When the supervisor reloads, what, and in which order; the real thing is in e2e."""

import threading

import pytest

from derma_semantics.domain.errors import ServiceError, ServiceUnavailable
from derma_serving.supervisor import Supervisor

CLASSIFIER, PREPROCESS, NETWORK = "derma_classifier", "derma_preprocess", "derma_biomedclip"
CANDIDATE, CANARY = "derma_biomedclip_candidate", "derma_canary"
HEALTHY = {11: PREPROCESS, 12: PREPROCESS, 13: NETWORK}


class FakeControl:
    """A server with two instances of preprocessing and one of the network."""

    def __init__(self):
        self.ready = {CLASSIFIER, PREPROCESS, NETWORK}
        self.calls = []
        self.refuse = None

    def index(self):
        return [
            {"name": n, "state": "READY" if n in self.ready else "UNAVAILABLE"}
            for n in sorted({CLASSIFIER, PREPROCESS, NETWORK} | self.ready)
        ]

    def instances(self, model):
        return {PREPROCESS: 2}.get(model, 1)

    def unload(self, model):
        self.calls.append(f"unload {model}")
        self.ready.discard(model)

    def load(self, model):
        if model == self.refuse:
            raise ServiceError("no")
        self.calls.append(f"load {model}")
        self.ready.add(model)


@pytest.fixture
def control():
    return FakeControl()


@pytest.fixture
def watch(control):
    """A supervisor, the stubs it sees, and the processes it killed."""
    stubs, killed, asked = dict(HEALTHY), [], []

    def find(server):
        asked.append(server)
        return dict(stubs)

    supervisor = Supervisor(control, find_stubs=find, kill=killed.append)
    return supervisor, stubs, killed, asked


def test_a_whole_service_is_left_alone(control, watch):
    watch[0].check(7)
    assert control.calls == []
    assert set(watch[3]) == {7}


def test_only_the_broken_model_is_reloaded_and_the_public_one_is_not_ready_meanwhile(control, watch):
    supervisor, stubs, killed, _ = watch
    del stubs[12]
    supervisor.check(7)
    expected = [f"unload {CLASSIFIER}", f"unload {PREPROCESS}", f"load {PREPROCESS}", f"load {CLASSIFIER}"]
    assert control.calls == expected
    assert killed == [11]  # what was left of it


def test_a_candidate_that_cannot_come_back_keeps_nothing_down(control, watch):
    supervisor, stubs, _, _ = watch
    control.ready |= {CANDIDATE, CANARY}
    stubs.update({31: CANARY})
    del stubs[12]
    control.refuse = CANDIDATE
    with pytest.raises(ServiceError):
        supervisor.check(7)
    assert control.calls[-2:] == [f"load {PREPROCESS}", f"load {CLASSIFIER}"]
    stubs.update({12: PREPROCESS})
    control.calls.clear()
    with pytest.raises(ServiceError):
        supervisor.check(7)  # tries the candidate again, and leaves the others alone
    assert control.calls == []
    assert CLASSIFIER in control.ready


def test_two_versions_that_serve_at_once_need_twice_the_stubs(control, watch):
    """As during a roll-out, when old stubs are still ending."""
    watch[1].update({21: NETWORK, 22: PREPROCESS})
    watch[0].check(7)
    assert control.calls == []


def test_a_failed_reload_is_tried_again(control, watch):
    supervisor, stubs, _, _ = watch
    del stubs[13]
    control.refuse = NETWORK
    with pytest.raises(ServiceError):
        supervisor.check(7)
    assert NETWORK not in control.ready
    control.refuse = None
    stubs[14] = NETWORK
    supervisor.check(7)
    assert control.ready == {CLASSIFIER, PREPROCESS, NETWORK}
    control.calls.clear()
    supervisor.check(7)
    assert control.calls == []


@pytest.fixture
def canary(control, watch):
    control.ready |= {CANDIDATE, CANARY}
    watch[1].update({31: CANDIDATE, 32: CANARY})
    return watch


def test_a_dead_candidate_comes_back_while_the_public_model_serves(control, canary):
    del canary[1][31]
    canary[0].check(7)
    assert control.calls == [f"unload {CANDIDATE}", f"load {CANDIDATE}"]


def test_a_canary_gets_its_candidate_again_after_a_restart_once(control, canary):
    control.ready.discard(CANDIDATE)
    del canary[1][31]
    control.refuse = CANDIDATE
    with pytest.raises(ServiceError):
        canary[0].check(7)
    canary[0].check(7)
    assert control.calls == []
    control.refuse = None
    canary[1][31] = CANDIDATE
    canary[0].check(8)
    assert control.calls == [f"load {CANDIDATE}"]


def test_a_canary_that_ended_is_not_brought_back(control, canary):
    del canary[1][32]
    control.refuse = CANARY
    with pytest.raises(ServiceError):
        canary[0].check(7)
    control.ready.discard(CANARY)
    canary[0].check(7)
    assert CLASSIFIER in control.ready


def test_a_version_unloaded_meanwhile_lacks_no_process(control):
    """Its process ended between the list of models and that of processes."""
    control.ready.add(CANDIDATE)

    def find(server):
        control.ready.discard(CANDIDATE)
        return dict(HEALTHY)

    Supervisor(control, find_stubs=find, kill=pytest.fail).check(7)
    assert control.calls == []


ORDER = [f"unload {CLASSIFIER}", f"unload {PREPROCESS}", f"load {PREPROCESS}", f"load {CLASSIFIER}"]


@pytest.mark.parametrize("done", range(len(ORDER) + 1))
def test_once_a_drain_begins_nothing_more_is_unloaded_or_loaded(control, watch, done):
    """It begins while so many calls of a reload are done, the last of which ends after it began."""
    _, stubs, killed, _ = watch
    stopping = threading.Event()

    class Drained(FakeControl):
        def drain(self):
            if len(self.calls) == done:
                stopping.set()

        def unload(self, model):
            super().unload(model)
            self.drain()

        def load(self, model):
            super().load(model)
            self.drain()

    drained = Drained()
    drained.drain()
    supervisor = Supervisor(drained, find_stubs=lambda _: dict(stubs), kill=killed.append, stopping=stopping)
    del stubs[12]
    supervisor.check(7)
    assert drained.calls == ORDER[:done]
    assert killed == ([11] if done > 2 else [])


def test_a_drain_brings_no_candidate_back(control, canary):
    control.ready.discard(CANDIDATE)
    canary[0].stopping.set()
    canary[0].check(7)
    assert control.calls == []


def test_altered_weights_are_not_loaded(control, watch):
    """Nothing is left loaded that would load them with it; the next check tries again."""
    _, stubs, _, _ = watch
    altered = True

    def look(_):
        if altered:
            raise ServiceUnavailable("altered weights do not serve")

    supervisor = Supervisor(
        control, find_stubs=lambda _: dict(stubs), kill=lambda _: None, check_weights=look
    )
    del stubs[12]
    for _ in range(2):
        with pytest.raises(ServiceUnavailable, match="altered"):
            supervisor.check(7)
        assert CLASSIFIER not in control.ready
    altered = False
    supervisor.check(7)
    assert control.ready == {CLASSIFIER, PREPROCESS, NETWORK}


def test_a_reload_looks_once_at_the_weights_of_the_network(control, canary):
    """And once at those of the candidate."""
    _, stubs, _, _ = canary
    looked = []
    supervisor = Supervisor(
        control, find_stubs=lambda _: dict(stubs), kill=lambda _: None, check_weights=looked.append
    )
    del stubs[12]
    supervisor.check(7)
    assert looked == [PREPROCESS]
    assert control.calls[-2:] == [f"load {PREPROCESS}", f"load {CLASSIFIER}"]
    looked.clear()
    del stubs[31]
    supervisor.check(7)
    assert looked == [PREPROCESS, CANDIDATE]
