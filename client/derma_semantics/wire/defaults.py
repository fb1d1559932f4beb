"""Addresses and times of a client that is told nothing else.

    DermaClient(DEFAULT_URL, timeout=DEFAULT_TIMEOUT)

Commands state them in ``--help``, so this module imports nothing.
"""

DEFAULT_URL = "127.0.0.1:8001"
DEFAULT_SALIENCY_URL = "http://127.0.0.1:8003"
# Seconds.
DEFAULT_TIMEOUT = 30.0
DEFAULT_RETRY_FOR = 10.0
