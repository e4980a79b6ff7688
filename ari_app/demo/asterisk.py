"""A private Asterisk 22: rendered configuration, free loopback ports, one process, gone without trace. Shell.

    async with PrivateAsterisk(fetch(progress), AsteriskSettings(app_name="demo")) as asterisk:
        ...  # asterisk.ari_password, asterisk.sip_port, await asterisk.rx("core show uptime")

Several may run at once. If this process dies, however it dies, the kernel ends its Asterisk.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import logging
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import BinaryIO

import aiohttp

from ari_app.demo.asterisk_prefix import ASTERISK, Prefix
from ari_app.errors import ConfigError, SetupError

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
CALLER_USER = "demo-caller"
MAIN_CONFIG = "etc/asterisk.conf"
RENDERER = Path(__file__).resolve().parents[2] / "asterisk-config" / "render.py"
RUN_FOLDER_PREFIX = "ari_app-ast-"

START_TIMEOUT_S = 30.0
"""Asterisk needs 0.4 s on an idle machine."""
STOP_TIMEOUT_S = 8.0
"""Asterisk hangs its channels up first, which takes 1 to 3 s."""
CONSOLE_TIMEOUT_S = 15.0
START_ATTEMPTS = 5
"""A port that was free may be taken by another process before Asterisk binds it; then others are chosen."""
LONGEST_SOCKET_PATH = 107
"""Of a Unix socket, in bytes (unix(7)); Asterisk's console socket is in the run folder."""

_TAKEN = re.compile(r"Address already in use", re.IGNORECASE)

# Runs the command given behind it so that the kernel ends it when this process is gone: PR_SET_PDEATHSIG (1)
# survives the exec. The parent may be gone already when it is set, which the parent's id tells. The signal is
# SIGKILL, because Asterisk does not heed SIGTERM while it starts.
_LAUNCHER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[1]), 0, 0, 0)
if os.getppid() == int(sys.argv[2]):
    os.execv(sys.argv[3], sys.argv[3:])
"""


@dataclass(frozen=True, slots=True)
class AsteriskSettings:
    """What may differ from one private Asterisk to the next; `asterisk-config/render.py` checks it."""

    app_name: str = "ari_app"
    """Stasis application that gets the inbound calls."""
    bot_extension: str = "100"
    fallback_extension: str = ""
    """Extension of the context from-internal that takes calls the bot cannot; empty: they are hung up."""
    away_sound: str = ""
    """Path without suffix of a sound file for when the application is away; empty: a tone."""
    trunk_domain: str = ""
    """Host where PJSIP/<number>@trunk leads (a trunk, or a SIP user agent of a test)."""
    trunk_port: str = ""
    """Its port; empty: 5060."""
    trunk_transport: str = "udp"
    trunk_username: str = ""
    """Account at the trunk; empty: none."""
    trunk_password: str = ""
    trunk_srtp: str = "no"
    trunk_ca_file: str = "/etc/ssl/certs/ca-certificates.crt"
    browser_phone: str = "no"
    """Whether the console may have a telephone."""
    ari_username: str = "ari_app"
    rtp_start: int = 10000
    rtp_end: int = 20000

    def placeholders(self) -> dict[str, str]:
        """As `render.py` takes them."""
        return {name: str(value) for name, value in asdict(self).items()}


class PrivateAsterisk:
    """One running Asterisk. Construct without effect; start on enter; stop and clean up on exit.

    Args:
        prefix: the program, from `asterisk_prefix.fetch`.
        settings: see `AsteriskSettings`.
        folder: where configuration, passwords, logs and recordings are kept; it stays afterwards. None: a
            temporary folder that is removed.
        http_port, sip_port: 0 means any free port.

    Raises (on enter):
        SetupError: Asterisk does not start, or no port can be had.
        ConfigError: a setting is not acceptable.
    """

    def __init__(
        self,
        prefix: Prefix,
        settings: AsteriskSettings | None = None,
        *,
        folder: Path | None = None,
        http_port: int = 0,
        sip_port: int = 0,
    ) -> None:
        self.settings = settings or AsteriskSettings()
        self.http_port = http_port
        self.sip_port = sip_port
        self.sip_host = LOOPBACK
        self.caller_user = CALLER_USER
        self.caller_password = self.browser_password = ""
        self.ari_password = ""
        self._prefix = prefix
        self._wanted_ports = (http_port, sip_port)
        self._given_folder = folder
        self._folder: Path | None = None
        self._lock: BinaryIO | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._ready = False

    def __repr__(self) -> str:
        return f"PrivateAsterisk(pid={self.pid}, ari={self.ari_url}, sip={self.sip_host}:{self.sip_port})"

    # --- what users of it need

    @property
    def ari_url(self) -> str:
        """Base URL without /ari, e.g. http://127.0.0.1:8088."""
        return f"http://{LOOPBACK}:{self.http_port}"

    @property
    def ari_user(self) -> str:
        """Name of the ARI user."""
        return self.settings.ari_username

    @property
    def bot_extension(self) -> str:
        """What a caller dials to reach the application."""
        return self.settings.bot_extension

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else None

    @property
    def folder(self) -> Path:
        """Configuration (etc), console.log, and Asterisk's own folders (state)."""
        if self._folder is None:
            raise SetupError("the private Asterisk has not been started")
        return self._folder

    @property
    def log_path(self) -> Path:
        """Asterisk's notices, warnings and errors; `security.log` is beside it."""
        return self.folder / "state" / "log" / "messages.log"

    @property
    def credentials_folder(self) -> Path:
        """One file per password: ari_password, caller_password."""
        return self.folder / "etc" / "credentials"

    async def rx(self, command: str) -> str:
        """Run a console command, e.g. "core show channels", and return what it prints.

        Raises:
            SetupError: Asterisk did not answer.
        """
        console = self._prefix.command(ASTERISK.binary, "-C", str(self.folder / MAIN_CONFIG), "-rx", command)
        process = await asyncio.create_subprocess_exec(
            *console,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), CONSOLE_TIMEOUT_S)
        except TimeoutError:
            raise SetupError("the console of the private Asterisk does not answer") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise SetupError(f"the console of the private Asterisk failed: {output.decode().strip()}")
        return output.decode(errors="replace")

    # --- life

    async def __aenter__(self) -> PrivateAsterisk:
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End the process and remove the temporary folder; idempotent."""
        try:
            await self._end_process()
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None
            if self._folder is not None and self._given_folder is None:
                shutil.rmtree(self._folder, ignore_errors=True)

    async def wait(self) -> int:
        """Until Asterisk ends by itself; its exit code."""
        if self._process is None:
            raise SetupError("the private Asterisk has not been started")
        return await self._process.wait()

    async def _start(self) -> None:
        self._make_folder()
        for attempt in range(1, START_ATTEMPTS + 1):
            wanted_http, wanted_sip = self._wanted_ports
            self.http_port = wanted_http or free_port(socket.SOCK_STREAM)
            self.sip_port = wanted_sip or free_port(socket.SOCK_DGRAM)
            self._render()
            await self._launch()
            self._ready = await self._is_ready()
            if self._ready:
                return
            await self._end_process()
            log.info("attempt %d: a port was taken before Asterisk could bind it", attempt)
            if wanted_http and wanted_sip:
                break
        raise SetupError(
            f"the private Asterisk cannot listen on TCP port {self.http_port} and UDP port {self.sip_port}, "
            f"because another program does; choose other ports"
        )

    def _make_folder(self) -> None:
        if self._given_folder is None:
            _sweep_dead_folders(Path(tempfile.gettempdir()))
            self._folder = Path(tempfile.mkdtemp(prefix=RUN_FOLDER_PREFIX))
        else:
            self._folder = self._given_folder.resolve()
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if len(str(self._folder / "state" / "run" / "asterisk.ctl").encode()) > LONGEST_SOCKET_PATH:
            raise SetupError(
                f"the path {self._folder} is too long for Asterisk's console socket; "
                f"use a shorter one (TMPDIR says where temporary folders are made)"
            )
        self._lock = (self._folder / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(f"another private Asterisk runs in {self._folder}") from None

    def _render(self) -> None:
        renderer = _load_renderer()
        given: Mapping[str, str] = {
            **self.settings.placeholders(),
            "modules_dir": str(self._prefix.library_folder / "asterisk" / "modules"),
            "data_dir": str(self._prefix.root / "usr/share/asterisk"),
            "state_dir": str(self.folder / "state"),
            "http_port": str(self.http_port),
            "sip_port": str(self.sip_port),
        }
        try:
            values = renderer.render(self.folder / "etc", given)
        except renderer.SettingError as error:
            raise ConfigError(f"Asterisk setting {error}") from error
        self.ari_password = values["ari_password"]
        self.caller_password = values["caller_password"]
        self.browser_password = values["browser_password"]

    async def _launch(self) -> None:
        logs = self.log_path.parent  # what an earlier attempt said must not be taken for this one's
        for old in logs.iterdir():
            old.unlink()
        command = self._prefix.command(ASTERISK.binary, "-C", str(self.folder / MAIN_CONFIG), "-f")
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(int(signal.SIGKILL)), str(os.getpid())]
        with (self.folder / "console.log").open("wb") as console:
            self._process = await asyncio.create_subprocess_exec(
                *launcher,
                *command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,  # Ctrl-C at a terminal is ours; we end Asterisk in our own order
            )

    async def _is_ready(self) -> bool:
        """Wait until ARI answers; False if a port was taken by someone else."""
        deadline = time.monotonic() + START_TIMEOUT_S
        headers = {"Authorization": aiohttp.encode_basic_auth(self.ari_user, self.ari_password)}
        timeout = aiohttp.ClientTimeout(total=2)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            while time.monotonic() < deadline:
                if _TAKEN.search(_said(self.log_path)):
                    return False
                if self.pid is None:
                    raise SetupError(
                        f"the private Asterisk ended at its start: {_last_error(self.folder, self.log_path)}"
                    )
                if await _pings(session, self.ari_url):
                    # ARI answers only when all modules are loaded: what could not bind has said so by now.
                    return not _TAKEN.search(_said(self.log_path))
                await asyncio.sleep(0.05)
        reason = _last_error(self.folder, self.log_path)
        raise SetupError(f"the private Asterisk was not ready within {START_TIMEOUT_S:g} s: {reason}")

    async def _end_process(self) -> None:
        process = self._process
        if process is None:
            return
        try:
            if self._ready and process.returncode is None:  # before that it has no call to hang up
                process.terminate()
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            log.warning("the private Asterisk did not stop within %g s: killing it", STOP_TIMEOUT_S)
        finally:  # a cancellation must not leave it behind either
            if process.returncode is None:
                process.kill()
                await process.wait()
            self._process = None
            self._ready = False


async def _pings(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/ari/asterisk/ping") as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _said(log_path: Path) -> str:
    try:
        return log_path.read_text(errors="replace")
    except OSError:  # not written yet
        return ""


def _last_error(folder: Path, log_path: Path) -> str:
    said = _said(folder / "console.log") + _said(log_path)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line or "Unable" in line]
    return (errors or lines or ["it said nothing"])[-1]


def free_port(kind: socket.SocketKind) -> int:
    """One that the kernel gives to no outgoing connection (by default from 32768 on): it is free at a restart, too."""
    while True:
        port = random.randrange(22_000, 30_000)
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, kind) as probe:
            probe.bind((LOOPBACK, port))
            return port


def _sweep_dead_folders(parent: Path) -> None:
    """Remove run folders whose process was killed, which their free lock tells."""
    for folder in parent.glob(f"{RUN_FOLDER_PREFIX}*"):
        try:
            if folder.lstat().st_uid != os.getuid():
                continue
            with (folder / "lock").open("r+b") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use, another user's, or being made right now
            continue


def _load_renderer() -> ModuleType:
    """`asterisk-config/render.py`, which is not part of the package because containers use it alone."""
    spec = importlib.util.spec_from_file_location("ari_app_asterisk_render", RENDERER)
    if spec is None or spec.loader is None or not RENDERER.is_file():
        raise SetupError(f"{RENDERER} is missing; run this from a clone of the project")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
