"""The launcher keeps the saliency sidecar beside Triton."""

import json
import os
import re
import shutil
import signal

import urllib3

from derma_semantics import DermaClient
from derma_semantics.contract import NETWORK


def ready(service):
    try:
        answer = urllib3.request("GET", f"{service.saliency}/readyz", timeout=5.0, retries=False)
    except urllib3.exceptions.HTTPError:
        return False
    return answer.status == 200 and json.loads(answer.data)


def test_the_launcher_starts_replaces_and_stops_the_sidecar(until, start_service, mini):
    service = start_service(f"--bundle={mini}")
    assert ready(service)
    (before,) = service.sidecars()
    os.kill(before, signal.SIGKILL)
    until(lambda: before not in service.sidecars() and ready(service), 60, "another sidecar answers")
    service.launcher.send_signal(signal.SIGTERM)
    service.launcher.communicate(timeout=60)
    assert service.launcher.returncode == 0
    assert service.sidecars() == []


def test_triton_comes_back_beside_the_sidecar(until, start_service, mini, jpeg):
    service = start_service(f"--bundle={mini}")
    (before,) = service.sidecars()
    server = next(pid for pid, command in service.processes() if "bin/tritonserver " in command)
    os.kill(server, signal.SIGKILL)
    with DermaClient(service.url) as client:
        until(lambda: not client.ready(timeout=1), 5, "readiness turns false")
        until(lambda: client.ready(timeout=1), 90, "Triton starts again")
        assert client.classify(jpeg(0)).bundle.digest
    assert service.sidecars() == [before]


def test_a_profile_is_what_is_served(start_service, repository, tmp_path):
    models = shutil.copytree(repository, tmp_path / "models")
    text = (models / NETWORK.name / "config.pbtxt").read_text()
    profile = models / NETWORK.name / "configs" / "short.pbtxt"
    profile.write_text(re.sub(r"max_queue_size: \d+", "max_queue_size: 7", text))
    service = start_service("--profile=short", models=models)
    config = urllib3.request("GET", f"{service.http}/v2/models/{NETWORK.name}/config", timeout=5.0).json()
    assert config["dynamic_batching"]["default_queue_policy"]["max_queue_size"] == 7
