"""What a call leaves with those who watch from outside: what it cost, and its spans."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from ari_app import cli
from ari_app.config import load
from ari_app.demo import script
from ari_app.demo.asterisk import PrivateAsterisk
from ari_app.demo.events import follow, wait_for_recording
from ari_app.demo.voice import utterance
from tests.e2e.checks import settled
from tests.e2e.conftest import Caller, Serve
from tests.fakes.otlp_collector import collecting

CHAT = {"text_in": 1000.0, "text_in_cached": 100.0, "text_out": 4000.0}
PER_MINUTE, PER_MILLION_CHARACTERS = 6.0, 15_000.0


async def test_a_call_tells_what_it_cost_and_how_long_it_took(
    asterisk: PrivateAsterisk,
    serve: Serve,
    caller: Caller,
    recordings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stages = load({}, {"OPENAI_BASE_URL": "http://any/v1"}, {}).stages("")
    prices = tmp_path / "prices.json"
    each = {"chat": CHAT, "stt": {"minute": PER_MINUTE}, "tts": {"characters": PER_MILLION_CHARACTERS}}
    prices.write_text(json.dumps({stages[name].model: price for name, price in each.items()}))
    line = await asyncio.to_thread(utterance, script.CALLER_LINES[0])
    async with collecting() as collector:
        settings = {
            "SYSTEM_MESSAGE": script.SYSTEM_MESSAGE,
            "GREETING": script.GREETING,
            "PRICES_FILE": str(prices),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        }
        async with serve(**settings) as process, caller() as ua:
            call = await ua.dial(asterisk.bot_extension)
            await call.answered(10)
            directory = await wait_for_recording(recordings, set(), 10)
            await call.listen_until_silence(max_s=15)
            await call.say(line)
            assert (await call.listen_until_silence(max_s=15)).sound_s > 0.5, "no answer was heard"
            await call.hangup()
            events = [event async for event in follow(directory / "events.jsonl")]
            await settled(asterisk, process.pid)
            log = process.log

    used = [event for event in events if event["event"] == "engine_used"]
    assert {event["model"] for event in used} == {stages[name].model for name in each}
    usd = 0.0
    for event in used:
        amounts = event["amounts"]
        match event["stage"]:
            case "speech-to-text":
                usd += amounts["audio_ms"] / 60_000 * PER_MINUTE
            case "text-to-speech":
                usd += amounts["characters"] / 1e6 * PER_MILLION_CHARACTERS
            case "chat" if "uncounted" not in amounts:
                usd += sum(count * CHAT[kind] for kind, count in amounts.items()) / 1e6
    said = next(event["text"] for event in events if event["event"] == "bot_said" and event["turn"] == 1)
    answers = [
        event["amounts"] for event in used if event["stage"] == "chat" and event["cost_usd"] is not None
    ]
    assert [amounts["text_out"] for amounts in answers] == [len(said.split())], "as the backend counts"
    assert used[-1]["call_cost_usd"] == pytest.approx(usd) and usd > 0
    capsys.readouterr()
    assert (
        await asyncio.to_thread(
            cli.main, ["calls", "--recordings-dir", str(recordings), "show", directory.name]
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert f"${usd:.4f}\n" in shown and f"{usd:.4f} USD" in log()

    (call_span,) = collector.named("call")
    about = events[0]
    assert call_span.attributes["ari_app.call_id"] == about["call"]
    assert call_span.attributes["sip.call_id"] == about["sip_call_id"]
    assert call_span.attributes["ari_app.outcome"] == "answered"
    timed = {event["turn"]: event for event in events if event["event"] == "turn_timed"}
    for turn in collector.named("turn"):
        assert turn.parent_id == call_span.span_id
        told = timed.pop(turn.attributes["ari_app.turn"])
        if told["first_frame_at"] is not None:
            waited_s = told["first_frame_at"] - told["speech_end_at"]
            assert (turn.end_ns - turn.begin_ns) / 1e9 == pytest.approx(
                waited_s, abs=0.003
            )  # rounded in the log
    assert not timed, "a span for each turn"
    for word in (*said.split(), *script.CALLER_LINES[0].split(), str(about["from"])):
        if len(word) > 5:
            assert word.encode() not in collector.raw
