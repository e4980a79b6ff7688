"""A disk that takes no more: what is there stays whole.

A limit on the size of files stands for the full disk: as there, the kernel takes the part of a piece that still fits,
and refuses the rest.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from tests.record.whole import assert_whole, cues

BEGIN = """
import logging, resource, sys, time
from pathlib import Path
import numpy as np
from ari_app.dialog.ports import BotSaid, CallerSaid
from ari_app.record.files import PlainFile
from ari_app.record.recorder import Recorder, RecorderSettings

logging.basicConfig(format="%(levelname)s %(message)s")
LOUD = np.full(160, 1000, "<i2").tobytes()

def limit(size_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))

def record():
    settings = RecorderSettings(system_message="Be brief.")
    return Recorder(Path("calls/call"), settings=settings, started_at=100.0, about={"call": "ab12"})

def both(recorder, seconds):
    for _ in range(seconds * 50):
        recorder.push_caller(LOUD, 100.0)
        recorder.push_bot(LOUD, 100.0)
"""


def run(folder: Path, steps: str) -> list[str]:
    """Run in a process of its own, whose files are limited; returns its log."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + textwrap.dedent(steps)],
        cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


def test_a_piece_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        limit(100)
        file = PlainFile(Path("lines"))
        try:
            for _ in range(100):
                file.append(b"abcdef\\n")
        except OSError:
            file.patch(0, b"ABC")
            file.close()
        """,
    )
    assert (tmp_path / "lines").read_bytes() == b"ABCdef\n" + b"abcdef\n" * 13


def test_sound_that_does_not_fit_leaves_what_went_before(tmp_path: Path) -> None:
    log = run(
        tmp_path,
        """
        recorder = record()
        limit(100_000)
        recorder.push_fact(CallerSaid(1, "hello", None, LOUD))
        while not Path("calls/call/segment_001.wav").exists():
            time.sleep(0.01)
        both(recorder, 10)
        while not recorder.failed:
            time.sleep(0.01)
        recorder.push_fact(CallerSaid(2, "is anybody there", None, LOUD))
        recorder.close()
        """,
    )
    folder = tmp_path / "calls" / "call"
    assert_whole(folder)
    assert 44 + 2 * 32_000 <= (folder / "full_call.wav").stat().st_size <= 100_000
    assert [words for *_, words in cues(folder)] == ["hello"]
    assert len(log) == 1 and log[0].startswith("ERROR recording calls/call stopped: "), log


def test_a_turn_that_does_not_fit_leaves_no_broken_file(tmp_path: Path) -> None:
    log = run(
        tmp_path,
        """
        recorder = record()
        limit(40_000)
        recorder.push_fact(CallerSaid(1, "hello", None, LOUD * 100))
        recorder.push_fact(BotSaid(1, "Good day. " * 2000, "", False, LOUD))
        recorder.push_fact(CallerSaid(2, "goodbye", None, LOUD * 200))
        recorder.close()
        """,
    )
    folder = tmp_path / "calls" / "call"
    assert_whole(folder)
    assert {path.name for path in folder.glob("*_0*")} == {
        *("transcript_001_user.txt", "segment_001.wav"),
        *("transcript_001_assistant.txt", "response_001.wav", "transcript_002_user.txt"),
    }
    assert len(log) == 1, log


def test_a_long_event_that_does_not_fit_leaves_whole_lines(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        recorder = record()
        limit(20_000)
        for number in range(100):
            recorder.note("odd", text="x" * 300)
        recorder.close()
        """,
    )
    assert_whole(tmp_path / "calls" / "call")
    assert (tmp_path / "calls" / "call" / "events.jsonl").read_text().count("\n") > 20


def test_a_recording_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        import os
        limit(10)
        for _ in range(3):
            files = os.listdir("/proc/self/fd")
            recorder = record()
            recorder.close()
            assert recorder.failed
            assert os.listdir("/proc/self/fd") == files
        """,
    )
    assert list((tmp_path / "calls").iterdir()) == []
