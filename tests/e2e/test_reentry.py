"""A dialplan that sends the caller to the application again after it was given back."""

from __future__ import annotations

import socket
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from ari_app.demo.asterisk import PrivateAsterisk
from ari_app.demo.asterisk_prefix import Prefix
from ari_app.demo.caller import SipCaller
from tests.e2e.applications import ServeProcess
from tests.e2e.checks import settled
from tests.e2e.conftest import settings_for

TRIES = 30
TRY_AGAIN = f"""
exten => 200,1,Set(TRIES=0)
 same => n(again),Stasis(ari_app,inbound,${{EXTEN}})
 same => n,Set(TRIES=$[${{TRIES}} + 1])
 same => n,GotoIf($[${{TRIES}} < {TRIES}]?again)
 same => n,Hangup(16)
"""
"""So often, because the second try must come while the first one is still being taken down."""


PORTS = 4
"""More than calls are taken down at the same time."""


def free_ports() -> int:
    """The first of PORTS in a row."""
    for first in range(36_000, 60_000, PORTS):
        with ExitStack() as found, suppress(OSError):
            for port in range(first, first + PORTS):
                found.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(
                    ("127.0.0.1", port)
                )
            return first
    raise AssertionError("no ports are free")


async def test_every_try_is_a_call_of_its_own(
    asterisk_prefix: Prefix, baresip_prefix: Prefix, backend_url: str, tmp_path: Path
) -> None:
    port = free_ports()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)  # short: Asterisk's console socket must fit into 107 bytes
        (folder / "etc").mkdir()
        (folder / "etc" / "extensions_local.conf").write_text(TRY_AGAIN)
        async with PrivateAsterisk(asterisk_prefix, folder=folder) as asterisk:
            settings = settings_for(asterisk, backend_url, tmp_path / "recordings")
            settings |= {"MODE": "echo", "RTP_PORTS": f"{port}-{port + PORTS - 1}"}
            async with (
                ServeProcess(settings, directory=tmp_path) as process,
                SipCaller(
                    server=(asterisk.sip_host, asterisk.sip_port),
                    user=asterisk.caller_user,
                    password=asterisk.caller_password,
                    prefix=baresip_prefix,
                ) as phone,
            ):
                # All ports are taken once the server is up: the set-up of each call fails.
                with ExitStack() as taken:
                    for number in range(port, port + PORTS):
                        taken.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(
                            ("127.0.0.1", number)
                        )
                    call = await phone.dial("200")
                    await call.closed(10)
                left = await settled(asterisk, process.pid)
                log = process.log()
    assert log.count("call ended: failed") == TRIES, log
    assert "RTP_PORTS" in log
    assert (left.channels, left.bridges, left.udp_sockets) == (0, 0, 0)
