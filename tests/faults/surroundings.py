"""What a case needs around it: a small disk, a clock of its own, a number that may be called. Shell."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.faults.engine import FaultyEngine
from tests.faults.lane import Lane

OUTSIDE = "5551234"
CLOCK_STEPS = {"clock steps an hour ahead": 3600, "clock steps an hour back": -3600}
CLOCK_VARIABLE = "CLOCK_OFFSET_FILE"
CLOCK_SOURCE = Path(__file__).with_name("clock.c")


@asynccontextmanager
async def nothing_special(lane: Lane) -> AsyncIterator[dict[str, str]]:
    """The settings of all cases do."""
    yield {}


@asynccontextmanager
async def small_disk(lane: Lane) -> AsyncIterator[dict[str, str]]:
    """A file system of a few megabytes for recordings, which takes root."""
    folder = lane.directory / "small"
    folder.mkdir(exist_ok=True)
    await _program("mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(folder))
    try:
        yield {"RECORDINGS_DIR": str(folder)}
    finally:
        await _program("umount", "--lazy", str(folder))


async def _program(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(*arguments, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode:
        raise OSError(f"{arguments[0]} failed: {said.decode().strip()}")


@asynccontextmanager
async def own_clock(lane: Lane) -> AsyncIterator[dict[str, str]]:
    """An application whose clock can be set without setting the machine's, which takes a C compiler."""
    library, offset = lane.directory / "clock.so", lane.directory / "clock"
    if not library.exists():
        await _program("cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(CLOCK_SOURCE))
    offset.write_bytes(bytes(8))
    yield {"LD_PRELOAD": str(library), CLOCK_VARIABLE: str(offset)}


@asynccontextmanager
async def way_out(lane: Lane) -> AsyncIterator[dict[str, str]]:
    """A number that may be called."""
    yield {"DIAL_ALLOW": OUTSIDE}


@asynccontextmanager
async def stand_in(lane: Lane) -> AsyncIterator[dict[str, str]]:
    """An engine for when the other one fails."""
    async with FaultyEngine() as other:
        settings = {}
        for stage in ("STT", "CHAT", "TTS", "RT"):
            settings[f"OPENAI_{stage}_FALLBACK_BASE_URL"] = other.url
            settings[f"OPENAI_{stage}_FALLBACK_MODEL"] = "stand-in"
        yield settings


def set_clock(path: Path, offset_s: int) -> None:
    """From now on the clock is so far beside the machine's; the file is mapped, so it is written in place."""
    with path.open("r+b") as file:
        file.write(offset_s.to_bytes(8, sys.byteorder, signed=True))
