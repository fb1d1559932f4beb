"""One launcher a state folder; stale files lock nobody out."""

import os
import subprocess
import sys

import pytest

from derma_semantics.domain.errors import ServiceUnavailable
from derma_serving.state import LOCK, claimed, holder

SERVE = [sys.executable, "-m", "derma_serving", "serve"]


def test_a_second_claim_is_refused_and_names_the_first(tmp_path):
    with claimed(tmp_path):
        assert holder(tmp_path) == os.getpid()
        with (
            pytest.raises(ServiceUnavailable, match=rf"already runs \(process {os.getpid()}\)"),
            claimed(tmp_path),
        ):
            pass
    assert holder(tmp_path) is None
    with claimed(tmp_path):
        assert holder(tmp_path) == os.getpid()


def test_the_lock_ends_with_its_process(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from derma_serving.state import claimed\n"
        "with claimed(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], timeout=60, check=False)
    assert done.returncode == -9
    assert (tmp_path / LOCK).read_text().isdigit()
    assert holder(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{}", "[]", "1", "1e400", "-5", "\0", str(2**70)])
def test_odd_content_locks_nobody_out(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    assert holder(tmp_path) is None
    with claimed(tmp_path):
        assert holder(tmp_path) == os.getpid()


@pytest.mark.parametrize("command", [["serve"], ["stop"]])
def test_a_state_that_is_no_folder_is_one_sentence(tmp_path, command):
    (tmp_path / "state").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "derma_serving", *command, f"--state={tmp_path / 'state'}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in (2, 3)
    assert "state" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_admin_key_that_is_a_folder_is_one_sentence(tmp_path):
    (tmp_path / "admin.key").mkdir()
    options = [
        f"--state={tmp_path}",
        f"--repository={tmp_path}",
        *(f"--{name}-port=0" for name in ("http", "grpc", "metrics")),
    ]
    done = subprocess.run([*SERVE, *options], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3
    assert done.stderr.count("\n") <= 3
    assert "Traceback" not in done.stderr
