"""The benchmarks in their smoke mode, and locust, against a real Triton."""

import csv
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import triton_to_np_dtype

from derma_bench.servers.baseline import baseline
from derma_bench.servers.processes import free_ports, healthy
from derma_semantics.domain.contract import CLASSIFIER

VARIANT = (
    "patient",
    "dynamic_batching { preferred_batch_size: [ 32 ] max_queue_delay_microseconds: 150000 }",
)
ROOT = Path(__file__).resolve().parents[2]
LOCUSTFILE = ROOT / "benchmarks" / "locustfile.py"
# With drawn pictures and without the variables of whoever runs the tests.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("DERMA_IMAGES", "DERMA_RATE")}


def bench(*arguments):
    command = [sys.executable, "-m", "derma_bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


def locust(*arguments, locustfile=LOCUSTFILE, **variables):
    command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--headless", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**ENVIRONMENT, **variables},
        cwd=ROOT,
    )


def locust_in_background(*arguments, locustfile=LOCUSTFILE):
    command = [sys.executable, "-m", "locust", "-f", str(locustfile), *map(str, arguments)]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, **silent)


def end(process):
    if process.poll() is None:
        process.kill()
        process.wait(10)


def totals(prefix):
    """The row of all requests in locust's statistics."""
    with Path(f"{prefix}_stats.csv").open() as file:
        return next(row for row in csv.DictReader(file) if row["Name"] == "Aggregated")


@pytest.fixture
def photographs(tmp_path, jpeg):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.jpg").write_bytes(jpeg(seed))
    return folder


# --- derma-bench


def test_service_beside_a_variant_the_baseline_and_the_bare_engine(repository, mini, tmp_path):
    out = tmp_path / "service.json"
    config = repository / "derma_biomedclip" / "config.pbtxt"
    before = config.read_bytes()
    where = ("--repository", repository, "--bundle", mini, "--out", out)
    done = bench("service", "--smoke", "--against", "baseline", "--variant", *VARIANT, "--audited", *where)
    assert done.returncode == 0, done.stderr
    run = json.loads(out.read_text())
    assert run["smoke"] is True
    assert "SMOKE" in done.stdout
    assert run["subject"]["same_bundle"] is True
    assert run["subject"]["variants"] == dict([VARIANT])
    assert config.read_bytes() == before
    assert [level["concurrency"] for level in run["figures"]["levels"]] == [1, 2]
    for level in run["figures"]["levels"]:
        assert list(level["contenders"]) == ["derma", VARIANT[0], "with audit log", "baseline", "engine loop"]
        assert all(one["throughput"]["median"] > 0 for one in level["contenders"].values())
        assert all(one["failures"] == 0 for one in level["contenders"].values())
        assert level["ratios"]["baseline"]["median"] > 0
        assert level["occupancy"]["network"] >= 1
        assert level["stages_ms"]["network: infer"] > 0
        # The variant waits for a second image that never comes; ours does not.
        waited = level["contenders"][VARIANT[0]]["stages_ms"]["network: queue"]
        assert level["stages_ms"]["network: queue"] < 100 < waited
    assert str(tmp_path) not in out.read_text()
    report = bench("report", out, "--out", tmp_path / "report")
    assert report.returncode == 0, report.stderr
    assert (tmp_path / "report" / "service-throughput.png").is_file()


def test_saturate_a_running_service(service, tmp_path):
    out = tmp_path / "saturate.json"
    done = bench("saturate", "--smoke", "--p99", 5000, "--url", service.url, "--out", out)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())["figures"]
    assert figures["rate"] > 0
    assert figures["alone"]["latency_ms"]["p50"] > 0
    assert figures["at_share"]["offered"] == pytest.approx(0.7 * figures["rate"])
    assert service.launcher.poll() is None  # what it did not start it does not end


def test_bulk_beside_the_service_and_killed(service, photographs, jpeg, tmp_path):
    for seed in range(3, 300):  # enough to be killed before the last answer
        (photographs / f"{seed}.jpg").write_bytes(jpeg(seed))
    out = tmp_path / "bulk.json"
    done = bench("bulk", "--smoke", "--images", photographs, "--url", service.url, "--out", out)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())["figures"]
    assert figures["bulk_over_service"]["median"] > 0
    (kept,) = figures["answered_before_each_kill"]
    assert 150 <= kept < 300
    assert figures["rows_after_the_kills"] == figures["images"] == 300


def test_nobody_to_measure_is_told(tmp_path):
    done = bench("saturate", "--smoke", "--p99", 1, "--url", f"127.0.0.1:{free_ports(1)[0]}")
    assert done.returncode == 1
    assert "is not ready" in done.stderr


async def test_the_baseline_gives_our_answer(mini, client, tmp_path, jpeg):
    """Otherwise the comparison would be with something else."""
    ours = {f.condition.code: f.probability for f in client.classify(jpeg(1)).differential}
    with baseline(mini, tmp_path) as running:
        async with running.connect() as send:
            answer = await send(jpeg(1))
            with pytest.raises(httpx.HTTPStatusError):
                await send(b"no picture")
    assert answer.json() == pytest.approx(ours, abs=1e-4)


# --- locust


def test_locust_ten_seconds_without_a_failure(service, tmp_path):
    options = ("-u", 4, "-r", 4, "-t", "10s", "--host", service.url, "--csv", tmp_path / "run")
    done = locust(*options)
    assert done.returncode == 0, done.stderr
    row = totals(tmp_path / "run")
    assert int(row["Request Count"]) > 10
    assert int(row["Failure Count"]) == 0


def test_locust_open_loop_keeps_its_rate(service, tmp_path, photographs):
    options = ("-u", 2, "-r", 2, "-t", "8s", "--host", service.url, "--csv", tmp_path / "run")
    done = locust(*options, DERMA_RATE="1.5", DERMA_IMAGES=str(photographs))
    assert done.returncode == 0, done.stderr
    row = totals(tmp_path / "run")
    assert int(row["Failure Count"]) == 0
    assert 10 <= int(row["Request Count"]) <= 42  # 24 expected; five deviations of a Poisson count


def test_locust_master_and_worker(service, tmp_path):
    (port,) = free_ports(1)
    worker = locust_in_background("--worker", f"--master-port={port}")
    try:
        master = ("--master", "--expect-workers", 1, "--expect-workers-max-wait", 60)
        bind = ("--master-bind-host", "127.0.0.1", "--master-bind-port", port)
        load = ("-u", 2, "-r", 2, "-t", "6s", "--host", service.url, "--csv", tmp_path / "run")
        done = locust(*master, *bind, *load)
        assert done.returncode == 0, done.stderr
        assert worker.wait(30) == 0
    finally:
        end(worker)
    row = totals(tmp_path / "run")
    assert int(row["Request Count"]) > 3
    assert int(row["Failure Count"]) == 0


def test_locust_web_page(service, until):
    (port,) = free_ports(1)
    page = f"http://127.0.0.1:{port}"
    running = locust_in_background(f"--web-port={port}", "--web-host=127.0.0.1", f"--host={service.url}")
    try:
        until(lambda: healthy(page), 60, "the page is there")
        started = httpx.post(f"{page}/swarm", data={"user_count": 2, "spawn_rate": 2, "host": service.url})
        assert started.json()["success"]
        statistics = until(lambda: answered(page), 30, "images were classified")
        assert statistics["fail_ratio"] == 0
    finally:
        end(running)


def answered(page):
    """What the page shows, once it shows some requests."""
    statistics = httpx.get(f"{page}/stats/requests", timeout=10).json()
    return statistics if any(row["num_requests"] > 3 for row in statistics["stats"]) else None


class SlowServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers every image after a second, as many at once as are sent; knows how many these were."""

    def __init__(self):
        self.lock = threading.Lock()
        self.asked = self.under_way = self.most = 0

    def ModelInfer(self, request, context):
        with self.lock:
            self.asked += 1
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        time.sleep(1)
        with self.lock:
            self.under_way -= 1
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, tensor in CLASSIFIER.outputs.items():
            shape = [1, *(4 if size < 0 else size for size in tensor.shape)]
            answer.outputs.add(name=name, datatype=tensor.datatype, shape=shape)
            answer.raw_output_contents.append(np.zeros(shape, triton_to_np_dtype(tensor.datatype)).tobytes())
        return answer


@pytest.fixture
def slow():
    """A gRPC server in this process's threads; the load comes from another process."""
    servicer = SlowServer()
    server = grpc.server(ThreadPoolExecutor(32))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    servicer.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield servicer
    server.stop(2).wait(10)


def test_calls_of_many_users_overlap_in_time(slow, tmp_path):
    done = locust("-u", 20, "-r", 20, "-t", "5s", "--host", slow.url, "--csv", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    row = totals(tmp_path / "run")
    assert slow.most == 20
    assert int(row["Request Count"]) >= 40
    assert int(row["Failure Count"]) == 0


# For the end of a locustfile: notes the time whenever gevent gives it a turn.
CLOCK = """

def _clock():
    with open({path!r}, "w", buffering=1) as file:
        while True:
            print(time.perf_counter(), file=file)
            gevent.sleep(0.02)


gevent.spawn(_clock)
"""


def longest_stop(text, slow, until, folder):
    """Seconds for which locust did nothing at all while 20 users waited for answers."""
    (folder / "clocked.py").write_text(text + CLOCK.format(path=str(folder / "times")))
    users = ("--headless", "-u", 20, "-r", 20, "--host", slow.url)
    running = locust_in_background(*users, locustfile=folder / "clocked.py")
    try:
        until(lambda: slow.asked >= 60, 60, "three calls of each user")
    finally:
        end(running)
    times = np.array((folder / "times").read_text().split(), float)
    return np.diff(times).max()


def test_locust_goes_on_while_users_wait(slow, until, tmp_path):
    assert longest_stop(LOCUSTFILE.read_text(), slow, until, tmp_path) < 0.7


def test_without_gevents_way_it_would_stop(slow, until, tmp_path):
    """The trap of grpc under gevent: unless told of it, the wait for one answer stops everything."""
    text = LOCUSTFILE.read_text()
    line = "grpc.experimental.gevent.init_gevent()"
    assert text.count(line) == 1
    assert longest_stop(text.replace(line, "pass"), slow, until, tmp_path) > 0.9
