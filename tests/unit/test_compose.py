"""What deploy/compose.yaml asks of containers.

No image is built here: tests/faults/test_containers.py runs the same programs as another user, in a
read-only file system.
"""

import re
from pathlib import Path

import pytest
import yaml

from derma_serving.options import service_options
from derma_serving.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "deploy" / "compose.yaml"
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
OWNER = "network"  # of the namespace


@pytest.fixture(params=SERVICES)
def service(request):
    return SERVICES[request.param]


def test_nobody_is_root_or_writes(service):
    user, group = map(int, service["user"].split(":"))
    assert user > 0 and group > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    assert all(volume["type"] == "bind" and volume["read_only"] for volume in service.get("volumes", []))
    assert all(re.search(r"size=\d+m", mount) for mount in service.get("tmpfs", []))


def test_everything_is_bounded(service):
    assert {"mem_limit", "pids_limit", "restart"} <= set(service)


def test_everything_that_works_is_watched():
    for name in SERVICES.keys() - {OWNER}:
        test = SERVICES[name]["healthcheck"]["test"]
        assert test[0] == "CMD" and any("127.0.0.1" in word for word in test)


def test_only_the_proxys_port_is_published():
    (door,) = re.findall(r"listen (\d+) ssl", (ROOT / "deploy" / "nginx" / "derma.conf").read_text())
    owner, *inside = SERVICES.values()
    assert owner["ports"] == [f"{door}:{door}"]
    assert all("ports" not in one and one["network_mode"] == f"service:{OWNER}" for one in inside)


def test_the_owner_of_the_network_does_nothing_and_ends_when_told():
    owner = SERVICES[OWNER]
    assert owner["entrypoint"] == ["sleep", "infinity"] and owner["init"] is True
    assert not {"command", "volumes", "tmpfs", "build", "depends_on"} & set(owner)


def test_health_is_asked_where_the_parts_listen():
    asked = {name: " ".join(SERVICES[name]["healthcheck"]["test"]) for name in ("triton", "saliency")}
    assert f":{Settings.http_port}/v2/models/derma_classifier/ready" in asked["triton"]
    assert f":{Settings.saliency_port}/healthz" in asked["saliency"]


def test_containers_wait_longer_than_the_drain_takes():
    grace = next(one for one in service_options(lambda: None).__click_params__ if one.name == "grace")
    for name in ("triton", "saliency"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= grace.default + 10


def test_what_is_mounted_is_in_the_checkout_or_exported():
    for one in SERVICES.values():
        for volume in one.get("volumes", []):
            source = (COMPOSE.parent / volume["source"]).resolve()
            exported = volume["target"] == "/models" and source == Settings.repository
            assert volume["source"].startswith("${") or exported or source.exists(), source


def test_the_images_end_as_the_same_user_and_copy_what_exists():
    text = (ROOT / "deploy" / "containers" / "Containerfile").read_text()
    stages = {re.search(r" AS (\w+)$", stage, re.M)[1]: stage for stage in text.split("\nFROM ")[1:]}
    targets = {one["build"]["target"] for one in SERVICES.values() if "build" in one}
    assert set(stages) == {"wheel", "environment"} | targets
    for name, stage in stages.items():
        if name in targets:
            assert re.findall(r"^USER (\S+)", stage, re.M)[-1] == SERVICES["triton"]["user"]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M)
    assert copied and all((ROOT / path).exists() for line in copied for path in line.split())
