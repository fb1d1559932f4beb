"""Shutdown drains: what was accepted is answered, what comes later is refused, and it ends in time."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import pytest
import urllib3

from derma_semantics import DermaClient
from derma_semantics.domain.contract import CLASSIFIER
from derma_semantics.domain.errors import Overloaded, ServiceUnavailable
from tests.faults.traffic import classifying
from tests.faults.vitals import vitals

GRACE = 30.0  # seconds, the launcher's default
SHORT = 6.0
MARGIN = 15.0  # for a busy machine, where even the end of a killed process takes time
# So Triton refuses what comes once the public model is unloaded. What is lost later names another
# model, or a connection.
AT_THE_DOOR = f"Request for unknown model: '{CLASSIFIER.name}'"


def drained(service, until, image, clients=16):
    """Ends a service that so many clients keep busy; what became of them, and the seconds it took."""
    with classifying(service.url, image, clients) as journal:
        until(lambda: len(journal) > 50, 60, "the load runs")
        told = time.monotonic()
        service.launcher.send_signal(signal.SIGTERM)
        output, _ = service.launcher.communicate(timeout=90)
        took = time.monotonic() - told
    assert service.launcher.returncode == 0, output
    assert service.processes() == []
    assert service.segments() == []
    assert any(one.failure is None for one in under_way_of(journal, told))
    return journal, told, took


def under_way_of(requests, told):
    """What had been sent and not answered; without what reached Triton too late to be accepted."""
    found = [one for one in requests if one.sent < told < one.ended]
    return [one for one in found if AT_THE_DOOR not in str(one.failure)]


def lost_of(requests, told):
    """Failures of what was accepted before; a queue that was full did not accept it."""
    accepted = [one for one in requests if one.ended <= told] + under_way_of(requests, told)
    failures = [one.failure for one in accepted if one.failure is not None]
    return [one for one in failures if not isinstance(one, Overloaded)]


@pytest.mark.parametrize("audited", [False, True], ids=["plain", "audited"])
def test_under_load(start_service, until, jpeg, amount, note, tmp_path, audited):
    if audited and amount(True, False):
        pytest.skip("in the full form")
    log = tmp_path / "audit.jsonl"
    service = start_service(*([f"--audit-log={log}"] if audited else []))
    requests, told, took = drained(service, until, jpeg(0), amount(24, 48))
    under_way = under_way_of(requests, told)
    later = [one for one in requests if one.sent >= told]
    lost = lost_of(requests, told)
    refused = Counter(type(one.failure) for one in later if one.failure is not None)
    note(
        "shutdown under load" + (", with an audit log" if audited else ""),
        under_way=len(under_way),
        lost=len(lost),
        answered_after_the_signal=len(later) - refused.total(),
        refused_after_the_signal=refused.total(),
        exit_s=took,
    )
    assert lost == []
    assert ServiceUnavailable in refused and set(refused) <= {ServiceUnavailable, Overloaded}
    assert took < GRACE
    if audited:
        assert len(log.read_text().splitlines()) == sum(one.failure is None for one in requests)


def test_with_kept_connections(start_service, until, jpeg, amount, note):
    """HTTP clients that keep their connections do not keep the service for longer than its grace."""
    if amount(True, False):
        pytest.skip("in the full form")
    service = start_service()
    with urllib3.PoolManager() as http:
        assert http.request("GET", f"{service.http}/v2/health/ready").status == 200
        requests, told, took = drained(service, until, jpeg(0))
    lost = lost_of(requests, told)
    note("shutdown with kept HTTP connections", lost=len(lost), exit_s=took)
    assert lost == []
    assert took < GRACE


def test_after_triton_was_started_again(start_service, until, jpeg, amount, note):
    """The kernel ends a child with the thread that started it, here the one that supervises."""
    if amount(True, False):
        pytest.skip("in the full form")
    service = start_service()
    old = vitals(service)["tritonserver"].pid
    os.kill(old, signal.SIGKILL)
    with DermaClient(service.url) as client:
        until(
            lambda: client.ready(timeout=1) and old not in dict(service.processes()), 90, "another is ready"
        )
    requests, told, took = drained(service, until, jpeg(0))
    lost = lost_of(requests, told)
    note("shutdown after a restart", lost=len(lost), exit_s=took)
    assert lost == []
    assert took < GRACE


def test_triton_hangs(start_service, amount, note):
    """The end is bounded, also where a second signal comes."""
    if amount(True, False):
        pytest.skip("in the full form")
    service = start_service(f"--grace={SHORT}")
    os.kill(vitals(service)["tritonserver"].pid, signal.SIGSTOP)
    told = time.monotonic()
    for _ in range(2):
        service.launcher.send_signal(signal.SIGTERM)
    output, _ = service.launcher.communicate(timeout=90)
    took = time.monotonic() - told
    note("shutdown of a Triton that hangs", grace_s=SHORT, exit_s=took)
    assert service.launcher.returncode == 0, output
    assert service.processes() == []
    assert service.segments() == []
    assert took < SHORT + MARGIN
