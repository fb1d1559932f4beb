"""The prefork supervisor: replaces killed workers, leaves none behind, backs off."""

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
from derma_saliency.prefork import supervise

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
        print("finished", flush=True)
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
supervise(work, listener, grace=float(sys.argv[2]))
"""


class Supervised:
    """A supervisor, and the port of its listener."""

    def __init__(self, process):
        self.process = process
        self.port = int(process.stdout.readline())

    def ask(self):
        """The process id of the worker that answers; it waits where there is none."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            connection.settimeout(20)
            connection.sendall(b"?")
            return int(connection.recv(20) or 0)

    def output(self, seconds=20):
        """Everything that it printed until its end."""
        return "".join(self.process.communicate(timeout=seconds))


@contextmanager
def supervised(work, grace=20):
    command = [sys.executable, "-c", PROGRAM, work, str(grace)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    try:
        yield Supervised(process)
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
    with supervised("answer") as supervisor:
        workers = [supervisor.ask()]
        for _ in range(2):
            os.kill(workers[-1], signal.SIGKILL)
            until(lambda: gone(workers[-1]))
            workers.append(supervisor.ask())
        assert len({*workers, supervisor.process.pid}) == 4
        supervisor.process.terminate()
        assert "the worker ended (-9)" in supervisor.output()
        assert supervisor.process.returncode == 0


def test_a_killed_supervisor_leaves_no_worker(until):
    with supervised("answer") as supervisor:
        worker = supervisor.ask()
        supervisor.process.kill()
        until(lambda: gone(worker))


def test_on_sigterm_it_rejects_new_connections_and_finishes_those_in_flight(until):
    with supervised("last") as supervisor:
        supervisor.ask()
        supervisor.process.terminate()

        def refused():
            with suppress(OSError), socket.create_connection(("127.0.0.1", supervisor.port), 10):
                return False
            return True

        until(refused)
        assert "finished" in supervisor.output()
        assert supervisor.process.returncode == 0


def test_a_worker_that_does_not_end_is_killed(until):
    with supervised("hang", grace=0.5) as supervisor:
        assert supervisor.process.stdout.readline() == "deaf\n"
        supervisor.process.terminate()
        supervisor.output()
        assert supervisor.process.returncode == 0
        until(lambda: group_is_gone(supervisor.process))


def test_what_dies_again_and_again_gets_growing_pauses():
    """A signal ends it meanwhile."""
    with supervised("die") as supervisor:
        said = [supervisor.process.stderr.readline() for _ in range(3)]
        supervisor.process.terminate()
        supervisor.output(seconds=20)
        assert supervisor.process.returncode == 0
    pauses = [int(re.search(r"starts after (\d+) s", line)[1]) for line in said]
    died = [float(line.split()[0]) for line in said]
    assert pauses == [1, 2, 4]
    assert all(later - earlier >= pause for (earlier, later), pause in zip(pairwise(died), pauses))


def test_a_worker_that_fails_by_itself_ends_the_supervisor():
    """Another would fail alike: who started the supervisor starts all anew."""
    with supervised("fail") as supervisor:
        assert "ZeroDivisionError" in supervisor.output()
        assert supervisor.process.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_moment_ends_both(until, number):
    """Also between the fork and the first line of the worker."""
    for delay in range(12):
        with supervised("answer") as supervisor:
            time.sleep(delay / 1000)
            supervisor.process.send_signal(number)
            supervisor.output()
            assert supervisor.process.returncode in (0, -number)  # before `keep`, the system's own way
            until(lambda process=supervisor.process: group_is_gone(process))
