from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from ari_app.demo.events import delays_ms, describe, follow, wait_for_recording

TIMED = {
    "event": "turn_timed",
    "audio_ms": 5000,
    "turn": 1,
    "speech_end_at": 10.0,
    "endpoint_at": 11.0,
    "transcript_at": 11.3,
    "first_token_at": 11.31,
    "first_sentence_at": 11.35,
    "first_tts_byte_at": 11.4,
    "first_frame_at": 11.42,
}


def test_the_waterfall_adds_up_to_the_gap_the_caller_feels() -> None:
    delays = delays_ms(TIMED)
    assert delays.pop("total") == 1420
    assert sum(delays.values()) == 1420
    assert delays["silence window"] == 1000 and delays["speech-to-text"] == 300


def test_stages_that_were_not_reached_are_left_out() -> None:
    assert delays_ms({**TIMED, "first_token_at": None, "first_frame_at": None}) == {
        "silence window": 1000,
        "speech-to-text": 300,
        "first sentence": 50,
        "first speech": 50,
    }


def test_the_waterfall_of_realtime_has_fewer_stages_and_their_own_order() -> None:
    timed = {**TIMED, "transcript_at": None, "first_sentence_at": None, "first_token_at": 11.41}
    assert delays_ms(timed) == {
        "silence window": 1000,
        "first speech": 400,
        "first word": 10,
        "on the line": 10,
        "total": 1420,
    }


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"event": "caller_said", "text": "Hello?"}, "heard    Hello?"),
        ({"event": "bot_said", "text": "Yes.", "heard": "Yes.", "interrupted": False}, "bot      Yes."),
        (
            {"event": "bot_said", "text": "Yes, we.", "heard": "Yes,", "interrupted": True},
            "bot      Yes, [interrupted]",
        ),
        ({"event": "ended", "reason": "the caller hung up"}, "ended    the caller hung up"),
        (TIMED, "= 1420 ms"),
    ],
)
def test_events_are_worded_for_a_reader(event: dict[str, object], words: str) -> None:
    assert words in (describe({"audio_ms": 1500, **event}) or "")


def test_uninteresting_events_are_not_worded() -> None:
    assert describe({"audio_ms": 0, "event": "media_ready"}) is None


async def test_a_log_is_followed_line_by_line_until_the_call_ended(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.touch()
    lines = [json.dumps({"event": name}) + "\n" for name in ("one", "two", "ended", "never")]

    async def write_in_pieces() -> None:
        with path.open("a") as log:
            for piece in (lines[0][:5], lines[0][5:] + lines[1][:3], lines[1][3:] + lines[2] + lines[3]):
                log.write(piece)
                log.flush()
                await asyncio.sleep(0.15)

    writer = asyncio.create_task(write_in_pieces())
    assert [event["event"] async for event in follow(path)] == ["one", "two", "ended"]
    await writer


async def test_the_next_recording_is_found_and_known_ones_are_not(tmp_path: Path) -> None:
    for name in ("serve_1", "serve_2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "events.jsonl").touch()
    assert await wait_for_recording(tmp_path, {tmp_path / "serve_1"}, 1) == tmp_path / "serve_2"
    with pytest.raises(TimeoutError):
        await wait_for_recording(tmp_path, {tmp_path / "serve_1", tmp_path / "serve_2"}, 0.3)
