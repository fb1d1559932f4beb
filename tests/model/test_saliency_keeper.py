"""A killed worker is replaced, a dead keeper leaves none behind, what dies again and again gets pauses."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest

PROGRAM = """
import logging, os, signal, socket, sys, time
from derma_saliency.prefork import keep

logging.basicConfig(format="%(created)f %(message)s")

def answer():
    listener.settimeout(0.2)  # a signal that comes just before a system call does not end it
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        connection.recv(1)
        connection.sendall(b"%d " % os.getpid())
        connection.close()

def last():
    try:
        answer()
    except SystemExit:
        time.sleep(0.5)
        print("was under way", flush=True)
        raise

def hang():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    time.sleep(60)

work = {
    "answer": answer,
    "last": last,
    "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "fail": lambda: 1 / 0,
    "hang": hang,
}[sys.argv[1]]
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
keep(work, listener, grace=float(sys.argv[2]))
"""


class Kept:
    """A keeper, the port of its listener."""

    def __init__(self, process):
        self.process = process
        self.port = int(process.stdout.readline())

    def ask(self):
        """The process id of the worker that answers; it waits where there is none."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            connection.settimeout(20)
            connection.sendall(b"?")
            return int(connection.recv(20) or 0)

    def told(self, seconds=20):
        """What it printed until its end."""
        output, errors = self.process.communicate(timeout=seconds)
        return output + errors


@contextmanager
def kept(work, grace=20):
    command = [sys.executable, "-c", PROGRAM, work, str(grace)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    try:
        yield Kept(process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)


def gone(pid):
    """Ended; whoever adopted it may not have asked for its exit code yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def group_is_gone(process):
    try:
        members = [p for p in Path("/proc").glob("[0-9]*") if os.getpgid(int(p.name)) == process.pid]
    except ProcessLookupError:
        return False
    return all(gone(int(member.name)) for member in members)


def test_a_killed_worker_is_replaced(until):
    """And a caller that comes meanwhile waits."""
    with kept("answer") as keeper:
        workers = [keeper.ask()]
        for _ in range(2):
            os.kill(workers[-1], signal.SIGKILL)
            until(lambda: gone(workers[-1]))
            workers.append(keeper.ask())
        assert len({*workers, keeper.process.pid}) == 4
        keeper.process.terminate()
        assert "the worker ended (-9)" in keeper.told()
        assert keeper.process.returncode == 0


def test_a_killed_keeper_leaves_no_worker(until):
    with kept("answer") as keeper:
        worker = keeper.ask()
        keeper.process.kill()
        until(lambda: gone(worker))


def test_told_to_end_it_refuses_what_comes_and_waits_for_what_is_under_way(until):
    with kept("last") as keeper:
        keeper.ask()
        keeper.process.terminate()

        def refused():
            with suppress(OSError), socket.create_connection(("127.0.0.1", keeper.port), 10):
                return False
            return True

        until(refused)
        assert "was under way" in keeper.told()
        assert keeper.process.returncode == 0


def test_a_worker_that_does_not_end_is_killed(until):
    with kept("hang", grace=0.5) as keeper:
        assert keeper.process.stdout.readline() == "deaf\n"
        keeper.process.terminate()
        keeper.told()
        assert keeper.process.returncode == 0
        until(lambda: group_is_gone(keeper.process))


def test_what_dies_again_and_again_gets_growing_pauses():
    """During which it can be told to end."""
    with kept("die") as keeper:
        said = [keeper.process.stderr.readline() for _ in range(3)]
        keeper.process.terminate()
        keeper.told(seconds=20)
        assert keeper.process.returncode == 0
    pauses = [int(re.search(r"starts after (\d+) s", line)[1]) for line in said]
    died = [float(line.split()[0]) for line in said]
    assert pauses == [1, 2, 4]
    assert all(later - earlier >= pause for (earlier, later), pause in zip(pairwise(died), pauses))


def test_a_worker_that_fails_by_itself_ends_the_keeper():
    """Another would fail alike: who started the keeper starts all anew."""
    with kept("fail") as keeper:
        assert "ZeroDivisionError" in keeper.told()
        assert keeper.process.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_moment_ends_both(until, number):
    """Also between the fork and the first line of the worker."""
    for delay in range(12):
        with kept("answer") as keeper:
            time.sleep(delay / 1000)
            keeper.process.send_signal(number)
            keeper.told()
            assert keeper.process.returncode in (0, -number)  # before `keep`, the system's own way
            until(lambda process=keeper.process: group_is_gone(process))
