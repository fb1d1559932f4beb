"""``derma bulk`` on a terminal."""

import os
import pty
import subprocess
import sys
import termios


def test_a_bar_with_rate_on_a_terminal(tmp_path):
    """On a real pseudo-terminal; no service listens, so the bar stays at 0."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(70):
        (photos / f"{number:04d}.jpg").write_bytes(b"%d" % number)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (25, 100))
    command = [sys.executable, "-m", "derma_semantics", "bulk", photos, "--out", tmp_path / "out.csv"]
    options = ["--url", "127.0.0.1:1", "--timeout", "2"]
    done = subprocess.run(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=theirs, timeout=60, check=False
    )
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 3
    assert "0/70" in shown and "images/s" in shown
