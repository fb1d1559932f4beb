"""Overload is refused, not queued to death."""

from __future__ import annotations

import time
from collections import Counter

from derma_semantics import AsyncDermaClient
from derma_semantics.errors import Overloaded
from tests.faults.traffic import arriving, kept_busy, percentile, throughput

LIMIT = 10.0  # seconds: default_timeout_microseconds of both queues
REFUSAL = 0.1  # of 95 in 100; the short form, which may share the processors, asks it of half
RETURN = 5.0
WORKERS = 16  # enough for full batches, and within the queues


async def test_three_times_capacity(service, jpeg, amount, note):
    async with AsyncDermaClient(service.url, retry_for=0, timeout=60) as client:
        await kept_busy(client, jpeg(0), WORKERS, 2)
        capacity = throughput(await kept_busy(client, jpeg(0), WORKERS, amount(4, 15)))
        burst = await arriving(client, jpeg(0), 3 * capacity, amount(8, 40))
        sent = max(one.sent for one in burst)
        drained = max(one.ended for one in burst) - sent
        while time.monotonic() - sent < RETURN:
            await kept_busy(client, jpeg(0), 1, 0.1)
        after = await kept_busy(client, jpeg(0), WORKERS, amount(4, 15))
    accepted = [one.seconds for one in burst if one.failure is None]
    refused = [one for one in burst if one.failure is not None]
    took = [one.seconds for one in refused]
    note(
        "overload",
        capacity_per_s=capacity,
        sent=len(burst),
        accepted=len(accepted),
        refused=len(refused),
        accepted_p99_s=percentile(accepted, 99),
        refusals_ms={f"p{q}": 1e3 * percentile(took, q) for q in (50, 95, 99, 100)},
        refused_by=dict(Counter(str(one.failure)[-60:] for one in refused)),
        queue_empty_after_s=drained,
        capacity_after_5_s=throughput(after),
    )
    assert {type(one.failure) for one in refused} == {Overloaded}
    assert percentile(accepted, 99) < LIMIT
    assert percentile(took, amount(50, 95)) < REFUSAL
    assert all(one.failure is None for one in after)
    assert throughput(after) > amount(0.4, 0.7) * capacity
