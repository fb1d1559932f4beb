"""Processes that benchmarks start: awaited, ended, and told of when they fail."""

import sys

import pytest

from derma_bench.servers.processes import ServiceFailed, cpu_seconds, free_ports, process


def test_a_process_is_awaited_and_ended(tmp_path):
    ready = tmp_path / "ready"
    work = "while time.process_time() < 0.1: pass"  # the kernel counts in ticks of 10 ms
    code = f"import pathlib, time\n{work}\npathlib.Path({str(ready)!r}).touch()\ntime.sleep(60)"
    command = [sys.executable, "-c", code]
    with process(command, tmp_path / "a.log", ready.exists) as pid:
        assert cpu_seconds(pid) > 0
    assert cpu_seconds(pid) == 0


def test_one_that_ends_or_hangs_is_told_with_its_last_words(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no such bundle')"]
    broken = process(command, tmp_path / "broken.log", lambda: False)
    with pytest.raises(ServiceFailed, match=r"broken ended while it started:\nno such bundle"), broken:
        pass
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    slow = process(command, tmp_path / "a.log", lambda: False, name="delay 1 ms", deadline=0.3)
    with pytest.raises(ServiceFailed, match="delay 1 ms was not ready within 0 s"), slow:
        pass


def test_ports_are_free_and_different():
    ports = free_ports(3)
    assert len(set(ports)) == 3
    assert all(19000 <= port < 30000 for port in ports)
