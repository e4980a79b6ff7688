"""Recordings on a small file system that becomes full in mid-call: callers don't notice, and what was written is
whole."""

from __future__ import annotations

import asyncio
import subprocess
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest

from ari_app.demo import script
from ari_app.demo.asterisk import PrivateAsterisk
from ari_app.demo.events import wait_for_recording
from ari_app.demo.voice import utterance
from tests.e2e.checks import events_of, settled, until
from tests.e2e.conftest import Caller, Serve
from tests.record.whole import assert_whole, cues

SIZE_MB = 3
LEFT_BYTES = 500_000
"""Less than the megabyte that is to stay free, more than the call writes before it ends."""
SETTINGS = {"SYSTEM_MESSAGE": script.SYSTEM_MESSAGE, "GREETING": "Hello.", "SILENCE_DURATION_MS": "600"}


@pytest.fixture
def recordings(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    folder = tmp_path / "recordings"
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode=700", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"no small file system can be mounted, which takes root: {reason.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path, left_bytes: int) -> None:
    """Take all that is free on the disk but this."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(file.tell() - left_bytes, 0))


def about_recordings(log: str) -> list[str]:
    """The lines at warning level or above."""
    return [line for line in log.splitlines() if " WARNING " in line or " ERROR " in line]


@pytest.mark.parametrize("min_free_mb", [0, 1])
async def test_a_disk_that_becomes_full_costs_the_recording_only(
    min_free_mb: int, asterisk: PrivateAsterisk, serve: Serve, caller: Caller, recordings: Path
) -> None:
    line = await asyncio.to_thread(utterance, script.CALLER_LINES[1])
    filler, more = recordings / "filler", recordings / "more"
    async with serve(**SETTINGS, RECORDINGS_MIN_FREE_MB=str(min_free_mb)) as process, caller() as ua:
        call = await ua.dial(asterisk.bot_extension)
        await call.answered(10)
        folder = await wait_for_recording(recordings, set(), 10)
        await call.listen_until_silence(max_s=10)
        await until(lambda: "bot_said" in (folder / "events.jsonl").read_text())
        fill(filler, LEFT_BYTES if min_free_mb else 0)
        await call.say(line)
        assert (await call.listen_until_silence(max_s=15)).sound_s > 0.5, "the caller heard nothing more"
        await until(lambda: "stopped" in process.log())
        await call.hangup()
        await settled(asterisk, process.pid)
        (stopped,) = about_recordings(process.log())

        await until(lambda: process.log().count("call ended") == 1)
        if not min_free_mb:
            fill(more, 0)  # what the log had kept free for its last line
        call = await ua.dial(asterisk.bot_extension)
        await call.answered(10)
        assert (await call.listen_until_silence(max_s=10)).sound_s > 0.2, "the next caller heard nothing"
        await call.hangup()
        await until(lambda: process.log().count("call ended") == 2)
        _, refused = about_recordings(process.log())
        assert [path.name for path in recordings.iterdir() if path not in (filler, more)] == [folder.name]
        left = await settled(asterisk, process.pid)
    assert (left.channels, left.bridges, left.udp_sockets) == (0, 0, 0)
    call_id = folder.name.rpartition("_")[2]
    why = "RECORDINGS_MIN_FREE_MB" if min_free_mb else "No space left"
    assert f"[{call_id}]" in stopped and "stopped" in stopped and why in stopped
    assert "this call is not recorded" in refused and why in refused and call_id not in refused

    assert_whole(folder)
    names = [event["event"] for event in events_of(folder)]
    assert names[-1] == "ended" and names.count("recording_stopped") == 1
    assert ("Bot", SETTINGS["GREETING"]) in [cue[2:] for cue in cues(folder)]
    with wave.open(str(folder / "full_call.wav")) as file:
        assert file.getnframes() >= 4000
