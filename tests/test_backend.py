"""The offline backend as a child process: it comes, it goes with its parent, and its failures reach the user."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from ari_app import backend as backend_module
from ari_app.backend import OfflineBackend
from ari_app.errors import SetupError
from ari_app.settings import SETTINGS

PARENT = """
import asyncio
from ari_app.backend import OfflineBackend

async def main():
    async with OfflineBackend() as backend:
        print(backend.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody has reaped yet is dead.
    return " Z " not in Path(f"/proc/{pid}/stat").read_text()


async def gone(pid: int, within_s: float = 10) -> bool:
    for _ in range(int(within_s / 0.1)):
        if not alive(pid):
            return True
        await asyncio.sleep(0.1)
    return False


async def test_it_answers_while_entered_and_is_gone_afterwards(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting in SETTINGS:
        if setting.secret:
            monkeypatch.setenv(setting.env, "sentinel-of-the-test")
    with caplog.at_level(logging.INFO):
        async with (
            OfflineBackend() as backend,
            aiohttp.ClientSession() as session,
            session.get(f"{backend.url}/models") as answer,
        ):
            assert answer.status == 200
            # It has no use for our secrets, and so none of them.
            assert b"sentinel-of-the-test" not in Path(f"/proc/{backend.pid}/environ").read_bytes()
        assert await gone(backend.pid)
    assert "whisper-base" in caplog.text, "models and licences are said"
    assert "ended with status" not in caplog.text


async def test_it_ends_when_its_parent_is_killed() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert parent.stdout is not None
    async with asyncio.timeout(60):
        pid = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    assert await gone(pid)


async def answers(session: aiohttp.ClientSession, backend: OfflineBackend) -> None:
    """Until it does."""
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(f"{backend.url}/models") as answer:
                assert answer.status == 200
                return
        await asyncio.sleep(0.1)


async def test_its_death_is_in_the_log_and_it_comes_back_where_it_was(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "AGAIN_S", 0.1)
    async with OfflineBackend() as backend, aiohttp.ClientSession() as session:
        dead = backend.pid
        os.kill(dead, signal.SIGKILL)
        async with asyncio.timeout(60):
            while "ended with status -9" not in caplog.text:
                await asyncio.sleep(0.05)
            await answers(session, backend)
        assert backend.pid != dead
    assert await gone(backend.pid)


async def test_one_that_hangs_at_its_start_is_ended_and_another_is_started(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with OfflineBackend() as backend, aiohttp.ClientSession() as session:
        monkeypatch.setattr(backend_module, "AGAIN_S", 0.0)
        monkeypatch.setattr(backend_module, "START_TIMEOUT_S", 1.0)
        dead = backend.pid
        os.kill(dead, signal.SIGKILL)
        async with asyncio.timeout(60):
            while (hanging := backend.pid) == dead:
                await asyncio.sleep(0.01)
            os.kill(hanging, signal.SIGSTOP)
            monkeypatch.setattr(backend_module, "START_TIMEOUT_S", 60.0)  # of the third
            while backend.pid == hanging:
                await asyncio.sleep(0.01)
            assert await gone(hanging)
            await answers(session, backend)
        assert "does not start: no answer in time" in caplog.text
    assert await gone(backend.pid)


async def test_one_that_is_being_started_again_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "AGAIN_S", 0.0)
    monkeypatch.setattr(backend_module, "END_TIMEOUT_S", 0.1)
    async with OfflineBackend() as backend:
        dead = backend.pid
        os.kill(dead, signal.SIGKILL)
        async with asyncio.timeout(10):
            while backend.pid == dead:
                await asyncio.sleep(0.01)
    assert await gone(backend.pid)


async def test_a_cache_that_cannot_be_written_reaches_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with pytest.raises(SetupError, match="XDG_CACHE_HOME"):
        async with OfflineBackend():
            pass
