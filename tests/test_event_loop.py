"""The event loop of all commands: who hangs in the look-up of a name, and who does not."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from ari_app.event_loop import Loop

CONNECT = """
import asyncio, socket, sys
import uvloop
from ari_app.event_loop import Loop

async def connect(port):
    loop = asyncio.get_running_loop()
    hanging = [asyncio.ensure_future(loop.getaddrinfo(f"engine{number}", 443)) for number in range(8)]
    await asyncio.sleep(0.2)
    for host in ("127.0.0.1", "localhost"):
        with socket.socket() as phone:
            phone.setblocking(False)
            await loop.sock_connect(phone, (host, port))
        print(host, flush=True)

uvloop.run(connect(int(sys.argv[1])), loop_factory=Loop)
"""


def test_names_that_hang_hold_up_no_other_connection_and_not_the_end(tmp_path: Path) -> None:
    """The file of aliases is a pipe that nobody writes to: names without a dot hang, but for those of /etc/hosts."""
    os.mkfifo(tmp_path / "aliases")
    with socket.create_server(("127.0.0.1", 0)) as server:
        said = subprocess.run(
            [sys.executable, "-c", CONNECT, str(server.getsockname()[1])],
            env={**os.environ, "HOSTALIASES": str(tmp_path / "aliases")},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (said.stdout, said.stderr, said.returncode) == ("127.0.0.1\nlocalhost\n", "", 0)


def test_names_and_addresses_are_found_as_ever() -> None:
    async def look_up() -> None:
        loop = asyncio.get_running_loop()
        for host in ("127.0.0.1", "localhost", b"127.0.0.1", None):
            found = await loop.getaddrinfo(host, 80, family=socket.AF_INET, type=socket.SOCK_STREAM)
            assert [entry[4] for entry in found] == [("127.0.0.1", 80)]
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("nowhere.invalid", 80)
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("nowhere", 80, flags=socket.AI_NUMERICHOST)

    uvloop.run(look_up(), loop_factory=Loop)
