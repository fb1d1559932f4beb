"""Prefork supervisor: a worker, forked from a process that has loaded everything, is replaced when it dies.

    supervise(work, listener, grace=35.0)       # until SIGTERM or SIGINT

This process must not have begun what a fork breaks: threads of PyTorch, CUDA, a gRPC channel. Callers that
come while no worker lives wait in the listener's queue.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess

FORK = multiprocessing.get_context("fork")
SIGNALS = (signal.SIGTERM, signal.SIGINT)
PR_SET_PDEATHSIG = 1
STEADY = 1.0  # seconds; a worker that lived as long is replaced at once
FIRST, MOST = 1.0, 5.0  # the pause before the next of several that did not, doubled each time

log = logging.getLogger("derma_saliency.prefork")


def supervise(work: Callable[[], None], listener: socket.socket, grace: float) -> None:
    """Run ``work`` in a forked process, and another whenever that is killed.

    On a signal it closes the listener, sends SIGTERM to the worker, and waits ``grace`` seconds for its end.
    A worker that fails by itself, as by an exception, ends this process too, with its exit code.
    """
    stop, pause = _stop_signal(), 0.0
    while True:
        worker, began = _forked(work), time.monotonic()
        if stop in wait([worker.sentinel, stop]):
            break
        worker.join()
        if worker.exitcode and worker.exitcode > 0:
            sys.exit(worker.exitcode)
        pause = 0.0 if time.monotonic() - began > STEADY else min(max(FIRST, 2 * pause), MOST)
        log.error("the worker ended (%s); another starts after %.0f s", worker.exitcode, pause)
        if wait([stop], pause):
            break
    listener.close()
    worker.terminate()
    worker.join(grace)
    worker.kill()
    worker.join()


def _stop_signal() -> int:
    """A descriptor that becomes readable at the first signal, whenever that came."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    return reading


def _forked(work: Callable[[], None]) -> ForkProcess:
    """Signals wait until each of the two processes has its own way to take them."""
    parent = os.getpid()

    def run() -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, lambda *_: sys.exit(0))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if os.getppid() == parent:  # it may have died before prctl
            work()

    worker = FORK.Process(target=run, daemon=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        worker.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return worker
