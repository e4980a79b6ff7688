"""What callers hear when something is wrong: engines away, all lines taken, human speech over a real call."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ari_app.demo.asterisk import PrivateAsterisk
from ari_app.demo.events import follow, wait_for_recording
from ari_app.demo.voice import utterance
from tests.e2e.callers import human_sentences
from tests.e2e.checks import settled, word_error_rate
from tests.e2e.conftest import Caller, Serve

SHORT_ANSWERS = "Facts: A new bicycle tyre costs twenty euros."
"""Told no facts, the embedded assistant explains itself at length after every turn."""


async def test_engines_that_are_away_never_mean_silence(
    asterisk: PrivateAsterisk, serve: Serve, caller: Caller, recordings: Path
) -> None:
    line = await asyncio.to_thread(utterance, "Hello, is anybody there?")
    async with serve(OPENAI_BASE_URL="http://127.0.0.1:9/v1") as process, caller() as ua:
        call = await ua.dial(asterisk.bot_extension)
        await call.answered(10)
        directory = await wait_for_recording(recordings, set(), 10)
        turns = 0
        while not call.ended and turns < 5:
            await call.say(line)
            turns += 1
            assert (await call.listen_until_silence(max_s=10)).sound_s > 0.2, "dead air"
            await asyncio.sleep(0.3)
        await call.closed(10)
        events = [event async for event in follow(directory / "events.jsonl")]
        left = await settled(asterisk, process.pid)
    assert turns == 3
    assert sum(event["event"] == "engine_failed" for event in events) == 3
    assert events[-1]["outcome"] == "failed"
    assert (left.channels, left.bridges, left.udp_sockets) == (0, 0, 0)


async def test_one_call_too_many_is_refused_and_the_others_do_not_notice(
    asterisk: PrivateAsterisk, serve: Serve, caller: Caller
) -> None:
    async with serve(MODE="echo", MAX_CALLS="1") as process, caller() as first, caller() as second:
        call = await first.dial(asterisk.bot_extension)
        await call.answered(10)
        refused = await second.dial(asterisk.bot_extension)
        await refused.closed(10)
        assert refused.status == 486
        line = await asyncio.to_thread(utterance, "Am I still connected?")
        said = await call.say(line)
        await asyncio.sleep(0.5)
        assert call.heard_since(said.began_at).sound_s > 0.5
        await call.hangup()
        left = await settled(asterisk, process.pid)
    assert (left.channels, left.bridges, left.udp_sockets) == (0, 0, 0)


async def test_people_are_understood_over_a_real_call(
    asterisk: PrivateAsterisk, serve: Serve, caller: Caller, recordings: Path
) -> None:
    sentences = await asyncio.to_thread(human_sentences)
    said = sentences[:3]
    async with serve(SILENCE_DURATION_MS="800", SYSTEM_MESSAGE=SHORT_ANSWERS) as process, caller() as ua:
        call = await ua.dial(asterisk.bot_extension)
        await call.answered(10)
        directory = await wait_for_recording(recordings, set(), 10)
        for sentence in said:
            await call.say(sentence.pcm)
            assert (await call.listen_until_silence(max_s=20)).sound_s > 0.5
        await call.hangup()
        events = [event async for event in follow(directory / "events.jsonl")]
        await settled(asterisk, process.pid)
    heard = [event["text"] for event in events if event["event"] == "caller_said"]
    rate = word_error_rate(" ".join(s.text for s in said), " ".join(heard))
    assert rate <= 0.25, (rate, heard)
