"""A Triton that is installed, as in NVIDIA's container, instead of the pip wheel's: ``--triton``."""

import os
import signal

import psutil
import pytest

from derma_semantics import DermaClient
from derma_serving.server import _assemble_backends, _variables, _wheel
from derma_serving.settings import Settings
from derma_serving.supervisor import living_stubs


@pytest.fixture
def installation(tmp_path, monkeypatch):
    """The wheel's parts, laid out as the container has them; so is what its image says of the environment."""
    wheel = _wheel()
    _assemble_backends(wheel, tmp_path / "backends")
    (tmp_path / "bin").symlink_to(wheel / "bin")
    for name in ("PATH", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, _variables(wheel, Settings())[name])
    return tmp_path


def test_it_serves_and_is_watched(installation, start_service, until, jpeg):
    service = start_service(f"--triton={installation}")
    assert not (service.state / "backends").exists()
    with DermaClient(service.url) as client:
        assert client.classify(jpeg(0)).bundle.name == "derma-mini"
        (server,) = [one.pid for one in psutil.Process(service.launcher.pid).children() if is_triton(one)]
        before = living_stubs(server)
        old = next(pid for pid, model in before.items() if model == "derma_preprocess")
        os.kill(old, signal.SIGKILL)
        until(lambda: not client.ready(timeout=1), 5, "readiness turns false")
        until(lambda: client.ready(timeout=1), 60, "another takes its place")
        after = living_stubs(server)
        assert old not in after and sorted(after.values()) == sorted(before.values())
        assert client.classify(jpeg(0)).bundle.name == "derma-mini"


def is_triton(process):
    return process.name() == "tritonserver"
