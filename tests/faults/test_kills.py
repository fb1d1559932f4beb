"""Processes may be killed: clients that try again see nothing of it, and nothing is left over."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest
import urllib3

from derma_saliency.prefork import STEADY
from derma_semantics import DermaClient
from tests.faults.traffic import asking
from tests.faults.vitals import SIDECAR, vitals
from tests.services import start, stop

MODELS = ("derma_preprocess_0_0", "derma_preprocess_0_1", "derma_biomedclip_0_0")
KEEPER, WORKER = SIDECAR
# Seconds. A part that has to load everything anew may take as long as its first start, on a slow machine.
LIMITS = {**dict.fromkeys((*MODELS, WORKER), 10.0), "tritonserver": 60.0, KEEPER: 60.0}
PAUSE = 0.1  # seconds; one request or another is under way all the time, and what starts gets its turn
PATIENCE = {"retry_for": 90.0, "timeout": 120.0}


@contextmanager
def load(service, image):
    """Photographs from three clients, explanations from one; all try again for a while."""
    with (
        DermaClient(service.url, saliency_url=service.saliency, **PATIENCE) as client,
        asking(
            *[lambda: client.classify(image)] * 3,
            lambda: client.explain(image, condition="MEL"),
            pause=PAUSE,
        ) as journal,
    ):
        yield journal


def answers(service, client):
    if not client.ready(timeout=1):
        return False
    try:
        return urllib3.request("GET", f"{service.saliency}/healthz", timeout=1.0, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def whole(service, client):
    """Every process is there, once, and answers."""
    found = vitals(service)
    alone = len(service.processes()) == 4 and len(service.sidecars()) == 2
    return set(found) == set(LIMITS) and alone and answers(service, client)


def kill(service, client, part, until):
    """Seconds until another process has taken the place of this one and the service answers."""
    old = vitals(service)[part].pid
    os.kill(old, signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: old not in {one.pid for one in vitals(service).values()}, 5, f"{part} is gone")
    until(lambda: whole(service, client), LIMITS[part], f"{part} is back and nothing is left over")
    return time.monotonic() - killed


def test_killed_parts_come_back(start_service, mini, until, jpeg, amount, note):
    """Under load, at random moments."""
    rng = random.Random(0)
    short = ["derma_preprocess_0_1", "tritonserver", WORKER]
    full = [rng.choice(MODELS) for _ in range(16)] + ["tritonserver"] * 4 + [KEEPER] * 4 + [WORKER] * 6
    parts = amount(short, full)
    rng.shuffle(parts)
    service, back = start_service(f"--bundle={mini}"), {}
    with DermaClient(service.url) as client, load(service, jpeg(0)) as journal:
        until(lambda: len(journal.requests) > 20, 60, "the load runs")
        segments = len(service.segments())
        for part in parts:
            time.sleep(rng.uniform(0, 1))
            back.setdefault(part, []).append(kill(service, client, part, until))
            until(lambda: len(service.segments()) <= segments, 10, f"{part} leaves no shared memory behind")
        before = len(journal.requests)
        until(lambda: len(journal.requests) > before + 20, 30, "the load goes on")
    note(
        "killed parts",
        kills=len(parts),
        requests=len(journal.requests),
        failed=len(journal.failures),
        slowest_recovery_s={part: max(times) for part, times in sorted(back.items())},
        orphans=0,
        left_segments=0,
    )
    assert journal.failures == []


def test_a_triton_that_hangs_is_replaced(start_service, until, jpeg, note):
    """It does not die; the launcher ends it, and who asks meanwhile and tries again sees no failure."""
    service = start_service()
    with DermaClient(service.url, **PATIENCE) as client:
        expected = client.classify(jpeg(0)).differential
        old = vitals(service)["tritonserver"].pid
        os.kill(old, signal.SIGSTOP)
        stopped = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(client.classify, jpeg(0)) for _ in range(4)]
            until(lambda: old not in dict(service.processes()), LIMITS["tritonserver"], "it is ended")
            noticed = time.monotonic() - stopped
            until(lambda: client.ready(timeout=1), LIMITS["tritonserver"], "another one is ready")
            back = time.monotonic() - stopped
            assert [answer.result().differential for answer in asked] == [expected] * 4
    note("a Triton that hangs", noticed_after_s=noticed, recovery_s=back)


@contextmanager
def busy_cores(number):
    """So many processes that compute without end, for at most ten minutes."""
    burn = "import time; end = time.monotonic() + 600\nwhile time.monotonic() < end: pass"
    processes = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait(10)


@pytest.fixture(scope="module")
def lasting(repository, mini, tmp_path_factory):
    """One whose sidecar may be killed."""
    service = start(repository, tmp_path_factory.mktemp("state"), f"--bundle={mini}")
    yield service
    stop(service)


@pytest.mark.parametrize("burners", [0, os.cpu_count()], ids=["idle", "busy"])
def test_the_sidecar_comes_back(lasting, until, burners, amount, note):
    """Also where every core has something else to do."""
    service, parts = lasting, [WORKER] * amount(1, 3) + [KEEPER] * amount(1, 2)
    before, back = round(os.getloadavg()[0], 1), {}
    with DermaClient(service.url) as client, busy_cores(burners):
        for part in parts:
            time.sleep(2 * STEADY)  # what dies sooner is started again after a pause
            back.setdefault(part, []).append(kill(service, client, part, until))
    note(
        f"killed sidecar, {burners} cores busy",
        kills=len(parts),
        recovery_s={part: [round(took, 1) for took in times] for part, times in back.items()},
        load_before=before,
    )


def living(pids):
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]


@pytest.mark.parametrize("number", range(2))
def test_everything_ends_with_the_launcher(start_service, mini, until, jpeg, amount, number, note):
    """Under load. Another launcher then starts with the same state."""
    if number >= amount(1, 2):
        pytest.skip("in the full form")
    service = start_service(f"--bundle={mini}")
    parts = [one.pid for one in vitals(service).values()]
    assert len(parts) == 6
    with DermaClient(service.url, retry_for=0) as client, asking(lambda: client.classify(jpeg(0))) as journal:
        until(lambda: len(journal.requests) > 5, 60, "the load runs")
        journal.stop.set()
        service.launcher.kill()
        killed = time.monotonic()
        until(lambda: not living(parts), 30, "every part ends")
        took = time.monotonic() - killed
    service.launcher.communicate(timeout=10)
    until(lambda: not service.segments(), 5, "no segment of shared memory is left")
    note("killed launcher", all_parts_ended_after_s=took, orphans=0, left_segments=0)
