"""The comparison's arithmetic and turns, over fakes; real services are measured in e2e."""

import asyncio
import os
from contextlib import asynccontextmanager

import pytest

from derma_bench.load.generator import Generator
from derma_bench.ratios import ratio
from derma_bench.report import table
from derma_bench.servers.running import Running
from derma_bench.service import triton_statistics
from derma_bench.service.comparison import Plan, compare, summary
from derma_bench.service.contenders import ServiceContender, served_engine, served_graph


class FakeContender:
    def __init__(self, name, rates, log):
        self.name, self.rates, self.log = name, iter(rates), log

    def measure(self, concurrency, plan):
        self.log.append((self.name, concurrency))
        quantiles = {"p50": 1.0, "p95": 2.0, "p99": 3.0}
        return {"throughput": next(self.rates), "latency_ms": quantiles, "failures": {}}


def test_ratios_are_of_neighbours_and_reported_by_their_median():
    assert ratio([4, 9, 10], [2, 3, 10]) == {"median": 2, "min": 1, "max": 3}
    with pytest.raises(ValueError, match="no pairs"):
        ratio([1], [1, 2])
    with pytest.raises(ValueError, match="answered nothing"):
        ratio([1], [0])


def test_contenders_take_turns():
    log = []
    ours = FakeContender("derma", [10, 20, 12, 22], log)
    other = FakeContender("baseline", [5, 4, 4, 4], log)
    rounds = compare([ours, other], Plan((1, 4), 1, repeats=2), lambda _: None)
    assert log == [("derma", 1), ("baseline", 1), ("derma", 4), ("baseline", 4)] * 2
    figures = summary(rounds, "derma")
    assert [level["concurrency"] for level in figures["levels"]] == [1, 4]
    assert figures["levels"][0]["ratios"]["baseline"] == {"median": 2.5, "min": 2, "max": 3}
    assert figures["best"]["derma"] == {"median": 21, "min": 20, "max": 22}
    assert figures["best_ratios"]["baseline"] == {"median": 4.75, "min": 4, "max": 5.5}


def test_one_that_answered_nothing_has_no_ratio_but_its_figures():
    rounds = compare([FakeContender("derma", [1], []), FakeContender("peer", [0], [])], Plan((1,), 1, 1))
    figures = summary(rounds, "derma")
    assert figures["best_ratios"] == {}
    assert figures["best"]["peer"]["median"] == 0
    assert "| 1 | - |" in "\n".join(table.service(figures))


def test_a_service_is_measured_while_idle_ones_are_watched():
    class Sender:
        async def send(self, image):
            sum(range(100_000))  # some milliseconds, more than a tick of the process clock in all
            await asyncio.sleep(0.01)

    @asynccontextmanager
    async def connect():
        yield Sender()

    idle = Running("other", connect, pid=os.getpid())  # this process is busy itself
    row = ServiceContender(Running("derma", connect), Generator([b"image"]), [idle]).measure(
        2, Plan((2,), 0.3, 1, 0.1)
    )
    assert row["throughput"] > 10
    assert 0 < row["idle_cores"] < 4
    assert "statistics" not in row


def test_the_loop_runs_what_the_service_runs(tmp_path):
    config = {
        "parameters": {"precision": {"string_value": "bf16"}},
        "instance_group": [{"kind": "KIND_CPU", "count": 2}],
        "optimization": {"execution_accelerators": {"cpu_execution_accelerator": [{"name": "openvino"}]}},
    }
    engine = served_engine(config)
    assert (engine.provider, engine.precision, engine.threads) == ("openvino", "bf16", 0)
    assert served_engine({}).provider == "cpu"
    for version in ("2", "10"):
        (tmp_path / "derma_biomedclip" / version).mkdir(parents=True)
    assert served_graph(tmp_path).parent.name == "10"
    with pytest.raises(ValueError, match="derma-export"):
        served_graph(tmp_path / "derma_biomedclip")


def recorded(requests, images, executions, milliseconds):
    """An answer as tritonclient gives it: 64-bit numbers are text, zeros are left out."""
    ns = {"count": str(requests), "ns": str(int(milliseconds * 1e6 * requests))}
    return {
        "inference_count": str(images),
        "execution_count": str(executions),
        "inference_stats": {"success": ns, "queue": ns, "compute_infer": ns, "compute_output": {}},
    }


def test_statistics_are_differences_and_versions_add_up():
    before = {"model_stats": [{"name": "derma_biomedclip", "version": "1", **recorded(10, 10, 10, 5)}]}
    after = {
        "model_stats": [
            {"name": "derma_biomedclip", "version": "1", **recorded(20, 20, 15, 5)},
            {"name": "derma_biomedclip", "version": "2", **recorded(30, 30, 5, 5)},
            {"name": "derma_preprocess", "version": "1", **recorded(40, 40, 40, 2)},
            {"name": "derma_classifier", "version": "1", **recorded(40, 40, 40, 15)},
            {"name": "idle", "version": "1"},
        ]
    }
    used = triton_statistics.difference(before, after)
    assert set(used) == {"derma_biomedclip", "derma_preprocess", "derma_classifier"}
    network = used["derma_biomedclip"]
    assert (network["requests"], network["occupancy"]) == (40, 4)
    assert network["compute_infer"] == pytest.approx(5)
    assert network["compute_output"] == 0
    parts = triton_statistics.stages(used, mean_ms=20)
    assert parts["client and gRPC"] == pytest.approx(5)
    assert parts["ensemble"] == pytest.approx(1)
    assert sum(parts.values()) == pytest.approx(20)
