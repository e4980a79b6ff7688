"""baresip, a SIP user agent of Debian, run from a private copy and driven through its control socket. Shell.

Control is `ctrl_tcp` of baresip 1.1: JSON in netstrings (`<length>:<text>,`) on a loopback port, commands
with a token that comes back in the response, and events in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ari_app.demo.asterisk_prefix import Prefix, Tool
from ari_app.errors import AriAppError, SetupError

log = logging.getLogger(__name__)

BARESIP = Tool(
    name="baresip",
    title="baresip",
    packages=("baresip-core",),
    binary="usr/bin/baresip",
    version_args=("-h",),
    version=r"baresip v1\.",
    # The whole closure is 70 packages (alsa, jack, codecs, ...). The modules below link to libc only.
    keep=r"baresip-core|libre1|librem1|libc6|libgcc-s1|libatomic1|libssl3t64|zlib1g|libzstd1",
)

LOOPBACK = "127.0.0.1"
CONTROL_ADDRESS = "127.0.0.2"  # baresip also listens for SIP over TCP and TLS: this tells its sockets apart
SOURCE = "voice.wav"
SINK = "heard.wav"
LOG = "baresip.log"

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 3.0
COMMAND_TIMEOUT_S = 5.0
POLL_S = 0.02
LONGEST_MESSAGE_BYTES = 65536

CONFIG = """\
module_path {modules}
module g711.so
module aufile.so
module_app ctrl_tcp.so
module_app menu.so
ctrl_tcp_listen {control}:0
sip_listen {address}:{sip_port}
net_interface {address}
audio_source aufile,{source}
audio_player aufile,{sink}
audio_buffer 40-160
jitter_buffer_type off
call_local_timeout 600
call_max_calls 1
ring_aufile none
ringback_aufile none
busy_aufile none
error_aufile none
notfound_aufile none
sip_autoanswer_aufile none
"""

Event = dict[str, Any]


class CallerError(AriAppError):
    """The SIP caller could not do what was asked of it, or not in time; one sentence."""


class Baresip:
    """One running baresip. `on_event` gets each of its events, and one of type GONE when it is no more."""

    def __init__(
        self,
        prefix: Prefix,
        folder: Path,
        sip_port: int,
        on_event: Callable[[Event], None],
        *,
        address: str = LOOPBACK,
    ) -> None:
        self.sip_port = sip_port
        self._address = address
        self._prefix = prefix
        self._folder = folder
        self._on_event = on_event
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._tokens = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Event]] = {}

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else None

    async def start(self) -> None:
        """Launch it and connect to it.

        Raises:
            SetupError: it does not start.
        """
        config = CONFIG.format(
            modules=self._prefix.root / "usr/lib/baresip/modules",
            control=CONTROL_ADDRESS,
            address=self._address,
            sip_port=self.sip_port,
            source=SOURCE,
            sink=SINK,
        )
        (self._folder / "config").write_text(config)
        # Names inside the folder are relative, because baresip cuts device names at 127 characters.
        command = self._prefix.command(BARESIP.binary, "-f", ".")
        with (self._folder / LOG).open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", "--", *command),  # the kernel ends it if we are killed
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C at a terminal is ours; we end it in our own order
            )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                control_port = await self._listening("tcp", CONTROL_ADDRESS)
                self.sip_port = await self._listening("udp", self._address)
                reader, self._writer = await asyncio.open_connection(CONTROL_ADDRESS, control_port)
        except (TimeoutError, OSError):
            raise SetupError(f"the SIP user agent baresip does not start: {self._last_line()}") from None
        self._reader = asyncio.create_task(self._read(reader), name="baresip-control")

    async def stop(self) -> None:
        """End it, by its own `quit` (which hangs up and unregisters) or else by force; idempotent."""
        process, self._process = self._process, None
        try:
            if process is not None and process.returncode is None:
                with contextlib.suppress(CallerError, TimeoutError):
                    async with asyncio.timeout(STOP_TIMEOUT_S):
                        await self.command("quit")
                        await process.wait()
        finally:  # a cancellation must not leave it behind either
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()
            if self._reader is not None:
                self._reader.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._reader
                self._reader = None
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    async def command(self, name: str, params: str = "") -> str:
        """Run one of baresip's commands and return what it prints.

        Raises:
            CallerError: it is refused or not answered; the text does not contain `params`.
        """
        if self._writer is None or self._reader is None or self._reader.done():
            raise CallerError("the SIP user agent baresip is not running")
        token = str(next(self._tokens))
        text = json.dumps({"command": name, "params": params, "token": token}).encode()
        response = asyncio.get_running_loop().create_future()
        self._waiting[token] = response
        try:
            self._writer.write(b"%d:%s," % (len(text), text))
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                answer = await response
        except TimeoutError:
            raise CallerError(f"the SIP user agent baresip does not answer the command {name}") from None
        finally:
            del self._waiting[token]
        if not answer.get("ok"):
            reason = str(answer.get("data", "")).strip() or "no reason given"
            raise CallerError(f"the SIP user agent baresip refuses the command {name}: {reason}")
        return str(answer.get("data", ""))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Dispatch messages until the connection ends."""
        try:
            while True:
                message = await _read_message(reader)
                if message.get("response"):
                    waiting = self._waiting.get(str(message.get("token")))
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message)
                elif message.get("event"):
                    self._on_event(message)
        except (asyncio.IncompleteReadError, OSError, ValueError) as error:
            log.debug("control connection of baresip ended: %s", error)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(CallerError("the SIP user agent baresip has ended"))
        self._on_event({"event": True, "type": "GONE"})

    async def _listening(self, protocol: str, address: str) -> int:
        """The port that it has bound at `address`, once it has."""
        assert self._process is not None
        while True:
            if self._process.returncode is not None:
                raise SetupError(f"the SIP user agent baresip ended at its start: {self._last_line()}")
            port = bound_port(self._process.pid, protocol, address)
            if port is not None:
                return port
            await asyncio.sleep(POLL_S)

    def _last_line(self) -> str:
        lines = (self._folder / LOG).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


async def _read_message(reader: asyncio.StreamReader) -> Event:
    """One netstring (https://cr.yp.to/proto/netstrings.txt) that holds a JSON object."""
    length = int((await reader.readuntil(b":"))[:-1])
    if length > LONGEST_MESSAGE_BYTES:
        raise ValueError(f"message of {length} bytes")
    text = await reader.readexactly(length + 1)
    message = json.loads(text[:-1].decode(errors="replace"))
    if not isinstance(message, dict):
        raise ValueError("not an object")
    return message


def bound_port(pid: int, protocol: str, address: str) -> int | None:
    """The port of a process's socket bound to an IPv4 address (proc_pid_net(5)); None if it has none."""
    wanted = f"{struct.unpack('=I', socket.inet_aton(address))[0]:08X}"
    process = Path(f"/proc/{pid}")
    try:
        rows = [line.split() for line in (process / "net" / protocol).read_text().splitlines()[1:]]
        sockets = {os.readlink(process / "fd" / name) for name in os.listdir(process / "fd")}
    except OSError:  # it ended, or closed a file while we looked
        return None
    for row in rows:
        host, _, port = row[1].partition(":")
        if host == wanted and f"socket:[{row[9]}]" in sockets:
            return int(port, 16)
    return None
