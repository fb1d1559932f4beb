"""The journal of a process that was killed."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from derma_semantics.bulk.journal import Journal
from tests.unit.test_journal import DIGEST

ROOT = Path(__file__).resolve().parents[2]


def test_a_killed_process_loses_nothing_that_it_appended(tmp_path):
    """SIGKILL right after the append, which has not asked for the disk."""
    path = tmp_path / "answers.jsonl"
    code = f"""
        import os, signal
        from pathlib import Path
        from tests.unit.test_journal import Journal, DIGEST, answer
        journal = Journal(Path({str(path)!r}), DIGEST)
        for name in ("0.jpg", "1.jpg"):
            journal.append(name, answer())
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    with Journal(path, DIGEST) as journal:
        assert journal.names.keys() == {"0.jpg", "1.jpg"}
