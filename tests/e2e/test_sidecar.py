"""The launcher keeps the saliency sidecar beside Triton."""

import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
import urllib3

from derma_semantics import DermaClient
from derma_semantics.domain.contract import NETWORK


def ready(service):
    try:
        answer = urllib3.request("GET", f"{service.saliency}/readyz", timeout=5.0, retries=False)
    except urllib3.exceptions.HTTPError:
        return False
    return answer.status == 200 and json.loads(answer.data)


def test_the_launcher_starts_replaces_and_stops_the_sidecar(until, start_service, mini):
    service = start_service(f"--bundle={mini}")
    assert ready(service)
    before = service.sidecars()
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)

    def replaced():
        now = service.sidecars()
        return len(now) == 2 and not {*now} & {*before} and ready(service)

    until(replaced, 60, "another sidecar answers, and nothing is left of the one before")
    service.launcher.send_signal(signal.SIGTERM)
    service.launcher.communicate(timeout=60)
    assert service.launcher.returncode == 0
    assert service.sidecars() == []


def test_a_killed_worker_is_replaced_by_one_that_answers_the_same(until, start_service, mini, jpeg):
    """Forked anew, with gradients and prompts that it never saw before."""
    service = start_service(f"--bundle={mini}")
    keeper, worker = service.sidecars()
    asked = [("grad-eclip", "signs of melanoma"), ("attention", "a brown spot")]
    with DermaClient(service.url, saliency_url=service.saliency) as client:

        def answers():
            return [client.explain(jpeg(0), prompt, method=method) for method, prompt in asked]

        before = answers()
        os.kill(worker, signal.SIGKILL)
        until(lambda: worker not in service.sidecars() and len(service.sidecars()) == 2, 30, "another worker")
        after = answers()
    assert service.sidecars()[0] == keeper
    for old, new in zip(before, after, strict=True):
        assert new.probabilities == pytest.approx(old.probabilities, abs=1e-5)
        assert np.allclose(new.grid, old.grid, atol=1e-4)


def test_triton_comes_back_beside_the_sidecar(until, start_service, mini, jpeg):
    service = start_service(f"--bundle={mini}")
    before = service.sidecars()
    server = next(pid for pid, command in service.processes() if "bin/tritonserver " in command)
    os.kill(server, signal.SIGKILL)
    with DermaClient(service.url) as client:
        until(lambda: not client.ready(timeout=1), 5, "readiness turns false")
        until(lambda: client.ready(timeout=1), 90, "Triton starts again")
        assert client.classify(jpeg(0)).bundle.digest
    assert service.sidecars() == before


def test_a_profile_is_what_is_served(start_service, repository, tmp_path):
    models = shutil.copytree(repository, tmp_path / "models")
    text = (models / NETWORK.name / "config.pbtxt").read_text()
    profile = models / NETWORK.name / "configs" / "short.pbtxt"
    profile.write_text(re.sub(r"max_queue_size: \d+", "max_queue_size: 7", text))
    service = start_service("--profile=short", models=models)
    config = urllib3.request("GET", f"{service.http}/v2/models/{NETWORK.name}/config", timeout=5.0).json()
    assert config["dynamic_batching"]["default_queue_policy"]["max_queue_size"] == 7
