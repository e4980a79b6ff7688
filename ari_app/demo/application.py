"""The application as a process of its own, started as an operator does: `python -m ari_app serve`. Shell."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from ari_app.errors import SetupError
from ari_app.settings import SETTINGS

READY_TIMEOUT_S = 120
STOP_TIMEOUT_S = 10


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without any setting of ours (such as a real API key), plus `settings`."""
    ours = {setting.env for setting in SETTINGS}
    ours |= {f"{setting.env}_FILE" for setting in SETTINGS if setting.secret}
    return {name: value for name, value in os.environ.items() if name not in ours} | dict(settings)


class ServeProcess:
    """Runs `serve` with exactly the given settings; `directory` is its working directory, without `.env`."""

    def __init__(
        self,
        settings: Mapping[str, str],
        *,
        directory: Path,
        arguments: tuple[str, ...] = (),
        module: tuple[str, ...] = ("ari_app", "serve"),
    ) -> None:
        # Read by people, and stopped between two steps: a caller who is still there gets a moment.
        self._settings = {"LOG_FORMAT": "text", "DRAIN_SECONDS": "3", **settings}
        self._directory = directory
        self._arguments = (*module, *arguments)
        self._process: asyncio.subprocess.Process | None = None
        self._log_path = directory / "serve.log"

    async def __aenter__(self) -> Self:
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                # The kernel ends it if we are killed.
                *("setpriv", "--pdeathsig", "TERM", "--", sys.executable, "-m"),
                *self._arguments,
                cwd=self._directory,
                env=clean_environment(self._settings),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C at a terminal is ours; we end it in our own order
            )
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await self._wait_ready()
        except TimeoutError:
            await self.stop()
            raise SetupError(
                f"The application was not ready within {READY_TIMEOUT_S} s: {self.log()}"
            ) from None
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        assert self._process is not None
        return self._process.returncode

    def log(self) -> str:
        """What it wrote to standard error so far."""
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    async def stop(self) -> int:
        """End it as a service manager would: SIGTERM, and SIGKILL when that is not obeyed. Idempotent."""
        process = self._process
        assert process is not None
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
        return await process.wait()

    async def kill(self) -> None:
        """End it without a chance to clean up, as a crash would."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def _wait_ready(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        async for line in self._process.stdout:
            if line.startswith((b"ready", b"{")) and b"ready" in line:  # as text, or as JSON
                return
        raise SetupError(f"The application ended before it was ready: {self.log().strip() or 'no output'}")
