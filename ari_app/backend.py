"""The embedded offline backend as a child process: started when no engine is configured. Shell.

The child is reached only through its HTTP interface, like any other OpenAI-compatible server. It ends when
our end of its standard input closes, so it never outlives us, however we die.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from urllib.parse import urlsplit

from ari_app.errors import SetupError

logger = logging.getLogger(__name__)

SECRET = re.compile(r"KEY|PASSWORD|TOKEN|SECRET")
END_TIMEOUT_S = 5.0
SHORT_LIFE_S = 10.0
AGAIN_S = 2.0
"""Before one that died young is started again."""
START_TIMEOUT_S = 120
"""Loading takes about two seconds; the first start also assembles and checks the speech model."""


class OfflineBackend:
    """Runs `python -m ari_app offline` on a free loopback port; `url` is its base URL once entered."""

    def __init__(self) -> None:
        self.url = ""
        self.pid = 0
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._ending = False

    async def __aenter__(self) -> OfflineBackend:
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                self.url = await self._start("0")
        except BaseException as error:
            await self.__aexit__(None, None, None)
            if isinstance(error, TimeoutError):
                raise SetupError(
                    f"The embedded offline backend did not start within {START_TIMEOUT_S} s: "
                    "run `python -m ari_app offline` to see why."
                ) from None
            raise
        self._keeper = asyncio.create_task(self._keep_alive(), name="offline-backend")
        return self

    async def _start(self, port: str) -> str:
        """Begin the child; returns its URL when it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ari_app", "offline", "--port", port, "--exit-with-stdin"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**without_secrets(os.environ), "LOG_FORMAT": "text"},  # its lines become part of ours
        )
        self.pid = self._process.pid
        return await self._read_url()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._keeper is not None:  # it sees the end, unless it is starting another one
            await asyncio.wait({self._keeper}, timeout=END_TIMEOUT_S)
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        self._kill(self._process)
        await self._process.wait()

    @staticmethod
    def _kill(process: asyncio.subprocess.Process) -> None:
        """End it, whatever it is at; nothing when it has ended."""
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _read_url(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        while line := await _line(self._process.stdout):
            if line.startswith("listening on "):
                return line.removeprefix("listening on ")
            if line.startswith("error: "):
                raise SetupError(line.removeprefix("error: "))
            logger.info("%s", line)
        status = await self._process.wait()
        raise SetupError(
            f"The embedded offline backend ended at its start with status {status}: "
            "run `python -m ari_app offline` to see why."
        )

    async def _keep_alive(self) -> None:
        """Hand on what it says, and start it again, where it was, when it dies."""
        port = str(urlsplit(self.url).port)
        while True:
            began_at = time.monotonic()
            status = await self._log_output()
            if self._ending:
                return
            logger.error("the offline backend ended with status %d: it is started again", status)
            if time.monotonic() - began_at < SHORT_LIFE_S:
                await asyncio.sleep(AGAIN_S)
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    await self._start(port)
            except (SetupError, TimeoutError, OSError) as error:
                logger.error("the offline backend does not start: %s", str(error) or "no answer in time")
                if self._process is not None:  # one that hangs would be waited for
                    self._kill(self._process)

    async def _log_output(self) -> int:
        """Until its end; returns its status."""
        process = self._process
        assert process is not None and process.stdout is not None
        while line := await _line(process.stdout):
            logger.info("offline backend: %s", line)
        return await process.wait()


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """What the child needs to know: it asks nobody anything, so it gets no key, password or token."""
    return {name: value for name, value in environ.items() if not SECRET.search(name)}


async def _line(output: asyncio.StreamReader) -> str:
    """The next line, however long, at most its first 64 KiB; empty at the end."""
    try:
        raw = await output.readuntil(b"\n")
    except asyncio.LimitOverrunError as error:
        raw = await output.readexactly(error.consumed)
    except asyncio.IncompleteReadError as error:
        raw = error.partial
    return raw.decode(errors="replace").strip() or ("" if not raw else "-")
