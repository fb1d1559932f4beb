"""The search for the highest rate, over queues whose capacity is known."""

import pytest

from derma_bench.load.outcome import Load
from derma_bench.saturate import passes, search


def load_of(rate, p99, failures=None, completed=10):
    quantiles = dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "max"), p99)
    return Load("open", rate, 1.0, 10, completed, rate, failures or {}, quantiles if completed else {})


def queue_of(capacity):
    """Latency of an M/M/1 queue: 10 ms alone, without bound at its capacity."""
    return lambda rate: (
        load_of(rate, 10 / max(1e-9, 1 - rate / capacity))
        if rate < capacity
        else load_of(rate, 1e6, {"overflow": 3})
    )


@pytest.mark.parametrize("start", [1, 40, 1000])
def test_search_finds_a_known_capacity(start):
    bears = 100 * (1 - 10 / 51)
    found = search(queue_of(100), limit_ms=51, start=start)
    assert found.complete
    assert bears * 0.95 <= found.rate <= bears
    assert all(probe["passed"] == (probe["rate"] <= bears) for probe in found.probes)


def test_search_is_bounded():
    endless = search(lambda rate: load_of(rate, 1), limit_ms=50, start=1, most=5)
    assert (endless.rate, endless.complete, len(endless.probes)) == (16, False, 5)
    hopeless = search(lambda rate: load_of(rate, 99), limit_ms=50, start=16, most=5)
    assert (hopeless.rate, hopeless.complete) == (0, False)


def test_a_failure_or_silence_is_saturation():
    assert passes(load_of(1, 10), 50)
    assert not passes(load_of(1, 10, {"Overloaded": 1}), 50)
    assert not passes(load_of(1, 10, completed=0), 50)
