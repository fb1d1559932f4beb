"""A dead or full disk, and kills in the middle of an export: what was exported before still loads."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent
SEED = 1
NAMESPACE = ["unshare", "--mount", "--map-root-user"]


def run(command, seconds=300, **more):
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=seconds, check=False, **more
    )


def outcome(command):
    done = run(command)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def namespace(tmp_path_factory):
    """A prefix for commands that may mount what only they see."""
    folder = tmp_path_factory.mktemp("probe")
    if not shutil.which("unshare"):
        pytest.skip("needs the command unshare")
    done = run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", folder])
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount a file system: {done.stderr.strip()}")
    return NAMESPACE


def test_kills_at_random_moments(tmp_path, amount, note):
    """After each, every version is whole and agrees with the configuration; the next export cleans up."""
    interruptions = amount(3, 40)
    found = outcome([sys.executable, PROGRAMS / "killed_exports.py", tmp_path, interruptions, SEED])
    note("killed exports", **found)
    assert found["interrupted"] == interruptions  # kills that met an export at work
    assert found["versions"] > 0


def test_a_full_and_a_read_only_disk(namespace, tmp_path, note):
    """With ever more room: refused and nothing changed, until it fits; read-only: refused."""
    found = outcome([*namespace, sys.executable, PROGRAMS / "full_disk.py", tmp_path])
    note("full disk", **{"refused for want of room": found["ENOSPC"], "refused as read-only": found["EROFS"]})
    assert found["ENOSPC"] > 10
    assert found["new ENOSPC"] >= 1
    assert (found["None"], found["EROFS"]) == (1, 1)


@pytest.mark.parametrize("full", ["repository", "scratch"])
def test_the_command_says_that_the_disk_is_full(namespace, mini, tmp_path, full, amount):
    """And ends with 1. The shell mounts two megabytes, where the graph needs more."""
    if not amount(False, True):
        pytest.skip("a whole export: in the full form only")
    disk = tmp_path / "disk"
    disk.mkdir()
    models = disk / "models" if full == "repository" else tmp_path / "models"
    scratch = disk if full == "scratch" else tmp_path
    script = 'mount -t tmpfs -o size=2m tmpfs "$1" && shift && exec "$@"'
    command = [sys.executable, "-m", "derma_export", mini, "--repository", models]
    done = run(
        [*namespace, "sh", "-c", script, "sh", disk, *command], env={**os.environ, "TMPDIR": str(scratch)}
    )
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr and str(disk) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("pages", [0, 2, 40])
def test_a_service_that_finds_no_room_says_so(namespace, tmp_path, pages):
    """One sentence that names the folder, however far the launcher comes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        'mount -t tmpfs -o size=1m tmpfs "$1" && head -c $2 /dev/zero > "$1/fill" && shift 2 && exec "$@"'
    )
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    command = [sys.executable, "-m", "derma_serving", "serve", f"--state={disk / 'state'}", *ports]
    done = run([*namespace, "sh", "-c", script, "sh", disk, 2**20 - pages * 4096, *command])
    assert done.returncode == 3, done.stderr
    assert "No space left on device" in done.stderr and str(disk) in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import killed_exports as program

target, graph = Path(sys.argv[1]) / "models", Path(sys.argv[1]) / "graph.onnx"
graph.write_bytes(bytes(100_000))
program.export(target, graph, "a")
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
for limit in (0, 100, 5_000, 50_000, 99_999):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    try:
        program.export(target, graph, "b")
        sys.exit(f"{limit} bytes a file were enough")
    except OSError as exc:
        print(limit, exc)
    assert not program.leftovers(target)
    assert program.repository.stated(target)["bundle_name"] == "a"
    assert program.whole(target) == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
assert program.export(target, graph, "b") == 2
"""


def test_files_that_may_not_grow(tmp_path):
    """A limit of the process, which every machine can set: each write fails in its turn."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = run([sys.executable, "-c", LIMITED, tmp_path, PROGRAMS])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("File too large") == 5
