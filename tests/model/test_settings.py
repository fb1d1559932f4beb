"""The launcher's options, as a shell gives them."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--host=0.0.0.0"], "anyone could ask"),
        (["--tls-key", __file__], "needs both"),
        (["--tls-key", __file__, "--tls-certificate", __file__], "cannot be used"),
    ],
)
def test_the_launcher_refuses_before_it_starts_anything(options, reason, tmp_path):
    command = [sys.executable, "-m", "derma_serving", "serve", f"--state={tmp_path}", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, reason in done.stderr) == (2, True), done.stderr
    assert list(tmp_path.iterdir()) == []
