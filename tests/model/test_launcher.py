"""What the launcher makes of signals; the real thing is in e2e and faults."""

import subprocess
import sys

# The main thread is in the event nearly all the time, as it seldom is while it serves.
PROGRAM = """
import os, signal, threading, time
from derma_serving import launcher

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
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
