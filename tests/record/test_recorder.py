from __future__ import annotations

import json
import logging
import stat
import threading
import wave
from pathlib import Path

import numpy as np
import pytest

from ari_app.dialog.ports import BotSaid, BotSpeechStarted, CallerSaid
from ari_app.record.recorder import MAX_JOBS, Recorder, recording_directory

LOUD = np.full(160, 1000, "<i2").tobytes()
QUIET = bytes(320)


def record(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "call", system_message="Be brief.", started_at=100.0)


def test_a_call_leaves_the_documented_files(tmp_path: Path) -> None:
    recorder = record(tmp_path)
    for _ in range(75):
        recorder.push_caller(LOUD)
        recorder.push_bot(QUIET)
    recorder.push_fact(BotSpeechStarted(turn=0, at=101.5))
    recorder.push_fact(BotSaid(0, "Hello.", "Hello.", False, QUIET))
    recorder.push_fact(CallerSaid(1, "¿Qué tal?", "es", LOUD))
    recorder.push_fact(BotSaid(1, "Very well, thanks.", "Very", True, QUIET))
    recorder.note("ended", cause=16)
    recorder.close()
    recorder.close()
    names = {path.name for path in recorder.directory.iterdir()}
    assert names == {
        "full_call.wav",
        "full_transcript.txt",
        "events.jsonl",
        "transcript_000_assistant.txt",
        "response_000.wav",
        "transcript_001_user.txt",
        "segment_001.wav",
        "transcript_001_assistant.txt",
        "response_001.wav",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in recorder.directory.iterdir()} == {0o600}
    assert stat.S_IMODE(recorder.directory.stat().st_mode) == 0o700
    text = (recorder.directory / "full_transcript.txt").read_text(encoding="utf-8")
    assert text.split("\n\n") == [
        "SYSTEM: Be brief.",
        "ASSISTANT: Hello.",
        "USER: ¿Qué tal?",
        "ASSISTANT: Very [interrupted]",
        "",
    ]
    events = [
        json.loads(line) for line in (recorder.directory / "events.jsonl").read_text("utf-8").splitlines()
    ]
    assert [event["event"] for event in events] == [
        "bot_speech_started",
        "bot_said",
        "caller_said",
        "bot_said",
        "ended",
    ]
    assert events[-1] == {"audio_ms": 1500, "event": "ended", "cause": 16}
    assert events[0] == {"audio_ms": 1500, "event": "bot_speech_started", "turn": 0, "at": 1.5}
    assert events[2]["text"] == "¿Qué tal?" and "pcm" not in events[2]
    with wave.open(str(recorder.directory / "full_call.wav")) as full:
        assert (full.getnchannels(), full.getnframes()) == (2, 75 * 160)
        stereo = np.frombuffer(full.readframes(75 * 160), "<i2").reshape(-1, 2)
    assert set(stereo[:, 0]) == {1000} and set(stereo[:, 1]) == {0}


def test_two_responses_of_one_turn_are_both_kept(tmp_path: Path) -> None:
    recorder = record(tmp_path)
    recorder.push_fact(BotSaid(1, "The answer is", "The answer is", True, LOUD))
    recorder.push_fact(BotSaid(1, "Sorry.", "Sorry.", False, QUIET))
    recorder.close()
    assert (recorder.directory / "response_001_2.wav").exists()
    assert (recorder.directory / "transcript_001_assistant_2.txt").read_text() == "Sorry.\n"


def test_a_stuck_disk_costs_pieces_but_never_alignment_or_the_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = record(tmp_path)
    stuck = threading.Event()
    recorder._submit(lambda: None if stuck.wait(30) else None)
    seconds = MAX_JOBS + 20
    for _ in range(seconds * 50):
        recorder.push_caller(LOUD)
        recorder.push_bot(LOUD)
    stuck.set()
    for _ in range(50):
        recorder.push_caller(LOUD)
        recorder.push_bot(LOUD)
    with caplog.at_level(logging.WARNING):
        recorder.close()
    assert recorder.dropped_jobs > 0 and "too slow" in caplog.text
    with wave.open(str(recorder.directory / "full_call.wav")) as full:
        assert full.getnframes() == (seconds + 1) * 8000


def test_a_full_disk_ends_the_recording_not_the_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = record(tmp_path)

    def no_space() -> None:
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.ERROR):
        recorder._submit(no_space)
        recorder.push_fact(CallerSaid(1, "hello", None, LOUD))
        recorder.close()
    assert "No space left" in caplog.text
    assert not (recorder.directory / "segment_001.wav").exists()


def test_directory_names_take_nothing_odd() -> None:
    assert recording_directory(Path("r"), "serve", "20260101-120000", "ab12") == Path(
        "r/serve_20260101-120000_ab12"
    )
    with pytest.raises(ValueError, match="file name"):
        recording_directory(Path("r"), "serve", "20260101-120000", "../x")
