"""The embedded offline backend as a child process: started when no engine is configured. Shell.

The child is reached only through its HTTP interface, like any other OpenAI-compatible server. It ends when
our end of its standard input closes, so it never outlives us, however we die.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
from collections.abc import Mapping
from types import TracebackType

from ari_app.errors import SetupError

logger = logging.getLogger(__name__)

SECRET = re.compile(r"KEY|PASSWORD|TOKEN|SECRET")
START_TIMEOUT_S = 120
"""Loading takes about two seconds; the first start also assembles and checks the speech model."""


class OfflineBackend:
    """Runs `python -m ari_app offline` on a free loopback port; `url` is its base URL once entered."""

    def __init__(self) -> None:
        self.url = ""
        self.pid = 0
        self._process: asyncio.subprocess.Process | None = None
        self._drain: asyncio.Task[None] | None = None
        self._ending = False

    async def __aenter__(self) -> OfflineBackend:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ari_app", "offline", "--port", "0", "--exit-with-stdin"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**without_secrets(os.environ), "LOG_FORMAT": "text"},  # its lines become part of ours
        )
        self.pid = self._process.pid
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                self.url = await self._read_url()
        except BaseException as error:
            await self.__aexit__(None, None, None)
            if isinstance(error, TimeoutError):
                raise SetupError(
                    f"The embedded offline backend did not start within {START_TIMEOUT_S} s: "
                    "run `python -m ari_app offline` to see why."
                ) from None
            raise
        self._drain = asyncio.create_task(self._log_output(), name="offline-backend-output")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        self._ending = True
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        if self._drain is not None:
            await self._drain

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

    async def _log_output(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := await _line(self._process.stdout):
            logger.info("offline backend: %s", line)
        status = await self._process.wait()
        if not self._ending:
            logger.error(
                "the offline backend ended with status %d: no call can be answered until a restart", status
            )


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
