"""What containers ask for: another user than root, a read-only file system, the launcher as process 1.

Bubblewrap stands in for a container engine: it shares this machine's files, read-only, and its network.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import urllib3

from derma_semantics import DermaClient
from derma_semantics.domain.errors import Overloaded
from tests.faults.test_shutdown import lost_of, under_way_of
from tests.faults.traffic import classifying
from tests.services import ROOT, free_ports

BWRAP = shutil.which("bwrap")
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
USER = 65532
GRACE = 30.0


def allowed():
    """Whether this machine lets bubblewrap make user namespaces."""
    command = [BWRAP, "--ro-bind", "/", "/", "--unshare-user", "--uid", str(USER), "true"]
    return BWRAP and subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not allowed(), reason="bubblewrap is not installed, or not allowed")


def contained(*command, mounts=(), variables=None):
    """The command as process 1 of a container, without rights, and nothing to write to but memory."""
    writable = ("/tmp", "/dev/shm", "/run", "/var/log")
    return [
        *(BWRAP, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
        *(word for place in writable for word in ("--tmpfs", place)),
        *(str(word) for mount in mounts for word in mount),
        *("--unshare-user", "--uid", str(USER), "--gid", str(USER), "--cap-drop", "ALL"),
        *("--unshare-pid", "--as-pid-1", "--unshare-ipc", "--die-with-parent", "--new-session"),
        *("--clearenv", "--setenv", "PATH", "/usr/bin:/bin", "--setenv", "HOME", "/tmp"),
        *(word for name, value in (variables or {}).items() for word in ("--setenv", name, value)),
        *map(str, command),
    ]


@contextmanager
def running(command):
    """It, and the process that is 1 inside."""
    outer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield outer
    finally:
        outer.kill()  # its container dies with it
        outer.communicate(timeout=30)


def inner(outer):
    (child,) = psutil.Process(outer.pid).children()
    return child


def launcher(ports, repository, *options):
    return contained(
        *(sys.executable, "-m", "derma_serving", "serve", "--state", "/run/derma"),
        *("--repository", "/run/models", *options),
        *(f"--{name}-port={port}" for name, port in ports.items()),
        mounts=[("--ro-bind", repository, "/run/models")],
        variables={"PYTHONUNBUFFERED": "1"},
    )


def wait_until_ready(outer):
    said = []
    for line in outer.stdout:  # the launcher has a deadline of its own
        said.append(line)
        if line.startswith("ready;"):
            return
    pytest.fail(f"the launcher ended:\n{''.join(said)}")


def test_the_service_runs_and_drains(repository, mini, until, jpeg, note):
    ports, began = free_ports(), time.monotonic()
    with running(launcher(ports, repository, f"--bundle={mini}")) as outer:
        wait_until_ready(outer)
        started = time.monotonic() - began
        first = inner(outer)
        parts = [first, *first.children(recursive=True)]
        assert len(parts) == 7
        for one in parts:
            status = Path(f"/proc/{one.pid}/status").read_text()
            assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
        url = f"127.0.0.1:{ports['grpc']}"
        saliency = f"http://127.0.0.1:{ports['saliency']}"
        with DermaClient(url, saliency_url=saliency) as client:
            assert client.classify(jpeg(0)).bundle.name == "derma-mini"
            assert client.explain(jpeg(0), condition="MEL", method="grad-cam").grid.max() == 1
        with classifying(url, jpeg(0), 16) as journal:
            until(lambda: len(journal.requests) > 50, 60, "the load runs")
            told = time.monotonic()
            first.send_signal(signal.SIGTERM)
            output, _ = outer.communicate(timeout=90)
            took = time.monotonic() - told
    assert outer.returncode == 0, output
    lost = lost_of(journal.requests, told)
    under_way = under_way_of(journal.requests, told)
    note("container", started_s=started, under_way=len(under_way), lost=len(lost), exit_s=took)
    assert lost == []
    assert took < GRACE
    assert any(one.failure is None for one in under_way)
    assert not any(isinstance(one.failure, Overloaded) for one in under_way)


def test_the_proxy_runs(tmp_path, until):
    """With deploy/containers/nginx.conf and the door's own configuration."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    subprocess.run(
        [ROOT / "deploy" / "certificates.sh", tmp_path, "server", "127.0.0.1"], check=True, timeout=60
    )
    (tmp_path / "tokens.map").write_text(f'"Bearer {"a" * 64}" alice;\n')
    door = tmp_path / "derma.conf"
    text = (ROOT / "deploy" / "nginx" / "derma.conf").read_text()
    # This machine has no /etc/derma to mount something at.
    places = {"listen 8443": f"listen 127.0.0.1:{port}", "/etc/derma/": "/run/door/"}
    for old, new in places.items():
        assert old in text
        text = text.replace(old, new)
    door.write_text(text)
    mounts = [
        ("--tmpfs", "/etc/nginx", "--ro-bind", "/etc/nginx/mime.types", "/etc/nginx/mime.types"),
        ("--ro-bind", ROOT / "deploy" / "containers" / "nginx.conf", "/etc/nginx/derma/nginx.conf"),
        ("--ro-bind", door, "/etc/nginx/derma/derma.conf"),
        ("--ro-bind", tmp_path, "/run/door"),
        # As in nginx's image.
        ("--dir", "/var/log/nginx"),
        ("--symlink", "/dev/stdout", "/var/log/nginx/access.log"),
        ("--symlink", "/dev/stderr", "/var/log/nginx/error.log"),
    ]
    command = contained(NGINX, "-c", "/etc/nginx/derma/nginx.conf", "-g", "daemon off;", mounts=mounts)
    with running(command) as outer, urllib3.PoolManager(cert_reqs="CERT_NONE") as http:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

        def asked():
            try:
                return http.request("GET", f"https://127.0.0.1:{port}/readyz", timeout=2.0, retries=False)
            except urllib3.exceptions.HTTPError:
                assert outer.poll() is None, outer.stdout.read()
                return None

        assert until(asked, 20, "the proxy answers").status == 401
        inner(outer).send_signal(signal.SIGQUIT)
        until(lambda: outer.poll() is not None, 20, "the proxy ends")
        assert re.search(r'^\S+ "" 127\.0\.0\.1 /readyz 401 ', outer.stdout.read(), re.M)
