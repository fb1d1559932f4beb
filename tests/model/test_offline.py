"""The watch over tests that ask the network sees what libraries do."""

import socket
import urllib.request

import pytest

from tests import offline


@pytest.mark.parametrize("host", ["huggingface.co", "192.0.2.1"])
def test_a_question_to_the_network_is_noticed(host):
    with pytest.raises(OSError, match="a test asked the network"):
        urllib.request.urlopen(f"http://{host}/", timeout=5)
    assert host in offline.asked
    offline.asked.clear()


def test_this_machine_may_be_asked():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), 5).close()
    assert not offline.asked
