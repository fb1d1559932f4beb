"""The launcher keeps the saliency sidecar beside Triton."""

import json
import os
import shutil
import signal

import urllib3

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


def test_a_profile_is_what_is_served(start_service, repository, tmp_path):
    models = shutil.copytree(repository, tmp_path / "models")
    text = (models / NETWORK.name / "config.pbtxt").read_text()
    profile = models / NETWORK.name / "configs" / "short.pbtxt"
    profile.write_text(text.replace("max_queue_size: 256", "max_queue_size: 7"))
    service = start_service("--profile=short", models=models)
    config = urllib3.request("GET", f"{service.http}/v2/models/{NETWORK.name}/config", timeout=5.0).json()
    assert config["dynamic_batching"]["default_queue_policy"]["max_queue_size"] == 7
