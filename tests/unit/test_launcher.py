"""What the launcher makes of signals; the real thing is in e2e and faults."""

import os
import subprocess
import sys
from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"

# The main thread is in the event nearly all the time, as it seldom is while it serves.
PROGRAM = """
import os, signal, threading, time
import launcher

class Service:
    stopping = threading.Event()

def send():
    for number in range(1000):
        os.kill(os.getpid(), launcher.SIGNALS[number % 2])
        time.sleep(0.0005)

launcher._stop_on_signals(Service)
sender = threading.Thread(target=send)
sender.start()
Service.stopping.wait()
while sender.is_alive():
    Service.stopping.set()
    Service.stopping.wait()
print("alive")
"""


def test_signals_that_interrupt_one_another_and_the_main_thread_stop_nothing_else():
    """Wherever it holds the lock of what they set: a thousand of them."""
    environment = {**os.environ, "PYTHONPATH": str(DEPLOY)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True, text=True, timeout=60, env=environment, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
