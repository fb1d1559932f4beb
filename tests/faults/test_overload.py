"""Overload is refused, not queued to death."""

from __future__ import annotations

import shutil
import time
from collections import Counter

import pytest

from derma_export.rollout.flow import Rollout
from derma_export.rollout.trial import Trial
from derma_semantics import DermaClient
from derma_semantics.domain.errors import Overloaded
from derma_semantics.wire.transport import ModelControl
from derma_serving.runtime.engine import Engine
from derma_training.bundle import Bundle
from tests.faults.releases import release, served
from tests.faults.traffic import arriving, kept_busy, percentile, sender, throughput
from tests.services import start, stop

LIMIT = 10.0  # seconds: default_timeout_microseconds of both queues
REFUSAL = 0.1  # of 95 in 100; the short form, which may share the processors, asks it of half
RETURN = 5.0
WORKERS = 16  # enough for full batches, and within the queues


async def test_three_times_capacity(service, jpeg, amount, note):
    lasting = amount((4, 8), (8, 12))
    await overloaded(service, [jpeg(0)], lasting, amount, lambda **measured: note("overload", **measured))


async def test_with_an_audit_log(start_service, jpeg, amount, note, tmp_path):
    """Which has a line for each answer and for none that was refused."""
    if amount(True, False):
        pytest.skip("in the full form")
    log = tmp_path / "audit.jsonl"
    service = start_service(f"--audit-log={log}")
    name = "overload with an audit log"
    answered = await overloaded(
        service, [jpeg(0)], (4, 10), amount, lambda **measured: note(name, **measured)
    )
    assert len(log.read_text().splitlines()) == answered


async def test_with_a_canary(repository, mini, jpeg, amount, note, tmp_path):
    """Half of the images ask it, and are refused and answered like the others."""
    if amount(True, False):
        pytest.skip("in the full form")
    models, canary = shutil.copytree(repository, tmp_path / "models"), "ab" * 32
    service = start(models, tmp_path / "state")
    try:
        version, bundle, control = served(repository) / "1", Bundle.open(mini), ModelControl(service.url)
        images = [jpeg(n) for n in range(16)]
        with DermaClient(service.url) as client:
            rollout = Rollout(models, control, client, say=lambda _: None)
            rollout.start(release(models, version, bundle, canary), lambda _: Trial(version, Engine()), 50)
            asked = [answer.bundle.digest for answer in client.classify(images)]
        control.close()
        share = asked.count(canary) / len(images)
        assert 0.1 < share < 0.9
        await overloaded(
            service,
            images,
            (4, 10),
            amount,
            lambda **measured: note("overload with a canary", its_images=share, **measured),
        )
    finally:
        stop(service)


async def overloaded(service, images, lasting, amount, note):
    """A burst at three times capacity, and a while after it; the number of answers in all.

    ``lasting``: seconds of each measurement of capacity, and of the burst.
    """
    steady, long = lasting
    async with sender(service.url, *images) as ask:
        before = await kept_busy(ask, WORKERS, 2)
        busy = await kept_busy(ask, WORKERS, steady)
        capacity = throughput(busy)
        burst = await arriving(ask, 3 * capacity, long)
        sent = max(one.sent for one in burst)
        drained = max(one.ended for one in burst) - sent
        while time.monotonic() - sent < RETURN:
            before += await kept_busy(ask, 1, 0.1)
        after = await kept_busy(ask, WORKERS, steady)
    accepted = [one.seconds for one in burst if one.failure is None]
    refused = [one for one in burst if one.failure is not None]
    took = [one.seconds for one in refused]
    note(
        capacity_per_s=capacity,
        sent=len(burst),
        accepted=len(accepted),
        refused=len(refused),
        accepted_p99_s=percentile(accepted, 99),
        refusals_ms={f"p{q}": 1e3 * percentile(took, q) for q in (50, 95, 99, 100)},
        refused_by=dict(Counter(str(one.failure).rpartition("] ")[2] for one in refused)),
        queue_empty_after_s=drained,
        capacity_after_5_s=throughput(after),
    )
    assert {type(one.failure) for one in refused} == {Overloaded}
    assert percentile(accepted, 99) < LIMIT
    assert percentile(took, amount(50, 95)) < REFUSAL
    assert all(one.failure is None for one in after)
    assert throughput(after) > amount(0.4, 0.7) * capacity
    return sum(one.failure is None for one in (*before, *busy, *burst, *after))
