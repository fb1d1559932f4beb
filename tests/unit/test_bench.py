"""The benchmarks' arithmetic, over fakes; real services are measured in e2e."""

import asyncio
import json
import os
import sys
import threading
import time
from contextlib import asynccontextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from derma_bench import record, table, triton_statistics
from derma_bench.cli import main
from derma_bench.comparison import Plan, compare, ratio, summary
from derma_bench.contenders import ServiceContender, served_engine, served_graph
from derma_bench.generator import Generator
from derma_bench.hardware import machine
from derma_bench.load import Load, closed_loop, latency, open_loop, poisson
from derma_bench.payloads import payloads
from derma_bench.plots import draw
from derma_bench.processes import ServiceFailed, cpu_seconds, free_ports, process
from derma_bench.saturation import passes, search
from derma_bench.senders import http
from derma_bench.services import Running

IMAGES = [b"a", b"b", b"c"]


class FakeSender:
    """Answers ``places`` images at a time, each after ``seconds``; ``b"bad"`` fails."""

    def __init__(self, seconds=0.005, places=1000):
        self.seconds = seconds
        self.places = asyncio.Semaphore(places)
        self.sent = []
        self.under_way = 0
        self.most = 0

    async def send(self, image):
        self.sent.append(image)
        if image == b"bad":
            raise OSError("refused")
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            async with self.places:
                await asyncio.sleep(self.seconds)
        finally:
            self.under_way -= 1


def load_of(rate, p99, failures=None, completed=10):
    quantiles = dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "max"), p99)
    return Load("open", rate, 1.0, 10, completed, rate, failures or {}, quantiles if completed else {})


# --- load


def test_percentiles_are_numpys_in_milliseconds():
    found = latency([i / 1000 for i in range(1, 101)])
    assert found["p50"] == pytest.approx(50.5)
    assert found["p99"] == pytest.approx(99.01)
    assert (found["mean"], found["max"]) == (pytest.approx(50.5), pytest.approx(100))
    assert latency([]) == {}


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process():
    moments = poisson(50, 400, seed=1)
    gaps = np.diff(moments)
    assert len(moments) == pytest.approx(20_000, rel=0.03)
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.05)  # of an exponential: as large as its mean
    counts = np.bincount(moments.astype(int), minlength=400)
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.2)
    assert moments[0] > 0
    assert moments[-1] < 400
    assert np.array_equal(moments, poisson(50, 400, seed=1))
    assert not np.array_equal(moments[:10], poisson(50, 400, seed=2)[:10])


def test_no_rate_is_no_process():
    with pytest.raises(ValueError, match="must be positive"):
        poisson(0, 1, seed=0)


async def test_closed_loop_keeps_its_workers_busy_and_awaits_what_it_sent():
    sender = FakeSender(0.02)
    journal = await closed_loop(sender, IMAGES, workers=4, seconds=0.5, warm_up=0.1)
    found = journal.load("closed", 4)
    assert sender.most == 4
    assert sender.under_way == 0
    assert set(sender.sent) == set(IMAGES)
    assert 20 < found.throughput < 1.1 * 4 / 0.02
    assert found.completed == found.sent < len(sender.sent)  # warm-up does not count
    assert found.failures == {}
    assert found.latency_ms["p50"] >= 20


async def test_closed_loop_counts_failures_by_kind_and_backs_off():
    sender = FakeSender()
    found = (await closed_loop(sender, [b"bad"], workers=2, seconds=0.3, warm_up=0)).load("closed", 2)
    assert set(found.failures) == {"OSError"}
    assert found.completed == 0
    assert len(sender.sent) < 30


async def test_open_loop_measures_from_when_a_request_was_due():
    """One place of 0.05 s at 40 arrivals a second: the queue grows, and latency must say so."""
    journal = await open_loop(FakeSender(0.05, places=1), IMAGES, rate=40, seconds=1.0, warm_up=0)
    found = journal.load("open", 1)
    assert found.latency_ms["max"] > 500
    assert found.completed == found.sent == pytest.approx(40, abs=20)
    assert found.throughput <= 22


async def test_open_loop_bounds_what_is_under_way():
    sender = FakeSender(0.5)
    journal = await open_loop(sender, IMAGES, rate=200, seconds=0.3, warm_up=0, outstanding=5)
    found = journal.load("open", 1)
    assert sender.most == 5
    assert found.failures["overflow"] == found.sent - found.completed > 10


async def test_open_loop_gives_up_on_answers_that_never_come():
    journal = await open_loop(FakeSender(60), IMAGES, rate=20, seconds=0.3, warm_up=0, patience=0.1)
    found = journal.load("open", 1)
    assert found.completed == 0
    assert found.failures["unfinished"] == found.sent > 0


class SlowPost(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.02)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    """An HTTP service, because other processes cannot see a fake in this one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowPost)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_several_processes_send_as_one(web):
    with Generator(IMAGES, processes=2) as generator:
        found = generator.closed(partial(http, web), workers=5, seconds=1.0, warm_up=0.2)
        arrivals = generator.open(partial(http, web), rate=40, seconds=1.0, warm_up=0.2)
    assert (found.offered, found.failures) == (5, {})
    assert 5 < found.throughput < 1.1 * 5 / 0.02
    assert found.completed == pytest.approx(found.throughput, abs=5)
    assert arrivals.sent == pytest.approx(40, abs=32)
    assert arrivals.failures == {}


# --- comparison


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
    @asynccontextmanager
    async def connect():
        yield FakeSender(0.01)

    idle = Running("other", connect, pid=os.getpid())  # this process is busy itself
    row = ServiceContender(Running("derma", connect), Generator(IMAGES), [idle]).measure(
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


# --- saturation


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


# --- Triton's statistics


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


# --- records, tables, plots


def service_record(smoke=False):
    rounds = []
    for concurrency in (1, 2):
        for name, rate in (("derma", 40), ("baseline", 10)):
            row = load_of(rate * concurrency, 30.0).to_dict()
            row |= {"contender": name, "concurrency": concurrency, "repeat": 0}
            if name == "derma":
                row |= {"occupancy": {"decode": 1.0, "network": 1.8}}
                row |= {"stages_ms": {"client and gRPC": 2.0, "decode: infer": 4.0, "network: infer": 24.0}}
            rounds.append(row)
    subject = {"bundle_name": "derma-mini", "bundle_digest": "ab" * 32, "precision": "fp32"}
    arguments = ["service", "--bundle=/somewhere/derma-mini"]
    return record.make(
        "service", summary(rounds, "derma"), rounds, smoke=smoke, subject=subject, arguments=arguments
    )


def saturate_record():
    found = search(queue_of(100), limit_ms=50, start=20)
    figures = {
        "p99_limit_ms": 50.0,
        "rate": found.rate,
        "complete": found.complete,
        "alone": load_of(1, 10).to_dict(),
        "load_curve": found.probes,
        "at_share": {"share": 0.7, **load_of(50, 20).to_dict()},
    }
    return record.make("saturate", figures, found.probes, smoke=True, arguments=["saturate"])


def engine_record():
    rows = [{"engine": "openvino-bf16", "batch": 8, "fraction": 0.8, "gflops": 333.0}]
    return record.make("engine", {"threads": 2, "engines": rows}, [], smoke=False, arguments=["engine"])


def test_a_record_survives_its_file_and_names_no_folder(tmp_path):
    made = service_record()
    record.write(tmp_path / "runs" / "a.json", made)
    assert record.read(tmp_path / "runs" / "a.json") == json.loads(json.dumps(made))
    assert made["command_line"] == "derma-bench service --bundle=derma-mini"
    assert list((tmp_path / "runs").iterdir()) == [tmp_path / "runs" / "a.json"]


def test_arguments_inside_the_checkout_are_told_from_it():
    assert record.portable(str(record.ROOT / "training" / "bundles")) == "training/bundles"
    assert record.portable("/elsewhere/photographs") == "photographs"
    assert record.portable("--url=127.0.0.1:8001") == "--url=127.0.0.1:8001"


def test_a_machine_is_described_and_not_named():
    text = json.dumps(machine())
    assert machine()["cores"] >= 1
    assert os.uname().nodename not in machine().values()
    assert "/" not in text.replace("N/A", "")


@pytest.mark.parametrize("content", ["{}", "[]", "no json", '{"schema_version": 99}'])
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match="a.json"):
        record.read(tmp_path / "a.json")


def test_tables_state_ratios_and_spread():
    text = table.markdown(service_record())
    assert "| best | 80.0 (80.0 to 80.0) | 20.0 (20.0 to 20.0) |" in text
    assert "| 1 | 4.00 (4.00 to 4.00) |" in text
    assert "| 2 | 1.00 | 1.80 | 2.00 | 4.00 | 24.00 |" in text
    assert "SMOKE" not in text
    assert "derma-mini (abababababab), fp32" in text


def test_smoke_is_said():
    assert "SMOKE" in table.markdown(service_record(smoke=True))
    assert "SMOKE" in table.markdown(saturate_record())


def test_commands_without_a_layout_have_tables_too():
    text = table.markdown(engine_record())
    assert "| openvino-bf16 | 8 | 0.8 | 333 |" in text
    assert "| threads | 2 |" in text


def test_report_writes_tables_and_plots_that_are_png(tmp_path):
    runs = {"service": service_record(), "saturate": saturate_record(), "engine": engine_record()}
    for name, made in runs.items():
        record.write(tmp_path / f"{name}.json", made)
    out = tmp_path / "report"
    paths = [str(tmp_path / f"{name}.json") for name in runs]
    done = CliRunner().invoke(main, ["report", *paths, "--out", str(out)])
    assert done.exit_code == 0, done.output
    plots = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert plots == [
        "engine/engine-ceiling.png",
        "saturate/saturate-latency.png",
        "service/service-stages.png",
        "service/service-throughput.png",
    ]
    text = (out / "table.md").read_text()
    for plot in plots:
        assert f"({plot})" in text
        with Image.open(out / plot) as image:
            assert image.format == "PNG"
            assert np.asarray(image.convert("L")).std() > 5  # something is drawn


def test_a_run_without_figures_has_no_plots(tmp_path):
    assert draw(record.make("decode", {"decoders": []}, [], smoke=False), tmp_path) == []


# --- processes, payloads, command line


def test_a_process_is_awaited_and_ended(tmp_path):
    code = "import pathlib, time; pathlib.Path('ready').touch(); time.sleep(60)"
    ready = tmp_path / "ready"
    command = [sys.executable, "-c", code.replace("'ready'", repr(str(ready)))]
    with process(command, tmp_path / "a.log", ready.exists) as pid:
        assert cpu_seconds(pid) > 0
    assert cpu_seconds(pid) == 0


def test_one_that_ends_or_hangs_is_told_with_its_last_words(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no such bundle')"]
    broken = process(command, tmp_path / "broken.log", lambda: False)
    with pytest.raises(ServiceFailed, match=r"broken ended while it started:\nno such bundle"), broken:
        pass
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    slow = process(command, tmp_path / "slow.log", lambda: False, deadline=0.3)
    with pytest.raises(ServiceFailed, match="slow was not ready within 0 s"), slow:
        pass


def test_ports_are_free_and_different():
    ports = free_ports(3)
    assert len(set(ports)) == 3
    assert all(19000 <= port < 30000 for port in ports)


def test_payloads_are_jpeg(tmp_path, jpeg):
    (drawn,) = payloads(None, count=1)
    assert drawn[:2] == b"\xff\xd8"
    with pytest.raises(ValueError, match="holds no"):
        payloads(tmp_path)
    (tmp_path / "a.JPG").write_bytes(jpeg(0))
    (tmp_path / "notes.txt").write_text("no picture")
    assert payloads(tmp_path) == [jpeg(0)]


def test_help_teaches():
    run = CliRunner().invoke
    assert "derma-bench saturate --p99 100" in run(main, ["--help"]).output
    for command in ("service", "saturate", "engine", "decode", "report"):
        done = run(main, [command, "--help"])
        assert done.exit_code == 0, done.output
        assert "--smoke" in done.output or command == "report"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["service", "--concurrency", "1,x"], "no list such as"),
        (["service", "--concurrency", "0"], "start at 1"),
        (["service", "--against", "nobody"], "nobody"),
        (["saturate"], "--p99"),
        (["report", "missing.json", "--out", "x"], "missing.json"),
    ],
)
def test_wrong_usage_is_told(arguments, words):
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert words in done.output


def test_rivals_need_a_bundle(tmp_path):
    done = CliRunner().invoke(main, ["service", "--against", "baseline", "--out", str(tmp_path / "a.json")])
    assert done.exit_code == 1
    assert "needs --bundle" in done.output
