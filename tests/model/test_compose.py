"""The compose file, as docker-compose reads it."""

import shutil
import subprocess

import pytest

from tests.unit.test_compose import COMPOSE


def test_compose_reads_it():
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed")
    done = subprocess.run(
        [program, "-f", COMPOSE, "config", "--quiet"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
