"""A Redis of our own for those tests that need a real one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from staging.resp import Redis


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A redis-server of our own on a free loopback port."""
    # The one program goes by two names: the package redis-tools brings it without the service that redis-server adds.
    program = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no Redis is installed; expected on CI; apt-get install redis-tools")
        pytest.skip("no Redis is installed; apt-get install redis-tools")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free: int = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(free), "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, executable=program, stdout=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 10
            while True:
                try:
                    socket.create_connection(("127.0.0.1", free), timeout=1).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline, "redis-server did not come up within 10 s"
                    time.sleep(0.02)
            yield free
        finally:
            server.terminate()


@pytest.fixture
def redis(redis_port: int) -> Iterator[Redis]:
    connection = Redis("127.0.0.1", redis_port)
    connection.command("FLUSHALL")
    yield connection
    connection.close()
