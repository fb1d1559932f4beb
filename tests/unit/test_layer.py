"""The guard of this folder fails a unit test that leaves its layer."""

import os
import socket
import subprocess
from contextlib import suppress
from importlib import import_module
from threading import Thread

import grpc
import pytest


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: subprocess.run(["true"], check=True),
        os.fork,
        lambda: os.system("true"),
        lambda: socket.create_connection(("127.0.0.1", 1)),
        lambda: socket.socket().bind(("127.0.0.1", 0)),
        lambda: grpc.insecure_channel("127.0.0.1:1"),
        lambda: grpc.aio.insecure_channel("127.0.0.1:1"),
    ],
    ids=["process", "fork", "shell", "connection", "port", "channel", "asyncio channel"],
)
def test_what_a_unit_test_may_not_do_fails_it(attempt):
    with pytest.raises(pytest.fail.Exception, match="move it to tests/model"):
        attempt()


def test_heavy_modules_are_as_if_not_installed():
    with pytest.raises(ModuleNotFoundError, match="move it to tests/model"):
        import_module("torch.nowhere")


@pytest.mark.xfail(strict=True, raises=pytest.fail.Exception)
def test_also_in_another_thread():
    def swallow():
        with suppress(BaseException):
            subprocess.run(["true"], check=True)

    thread = Thread(target=swallow)
    thread.start()
    thread.join()
