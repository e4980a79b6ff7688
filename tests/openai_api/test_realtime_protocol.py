"""The wire: every event we send is one that the SDK's types know, and audio survives both formats."""

from __future__ import annotations

import base64
import json
import math
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.realtime import RealtimeClientEvent
from pydantic import TypeAdapter

from ari_app.errors import EngineRejected
from ari_app.openai_api import realtime_protocol as protocol
from ari_app.openai_api.realtime_protocol import Downlink, RealtimeSettings, Uplink

CLIENT_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)

PLAIN = RealtimeSettings("some-model", "alloy", "Be brief.", transcription_model="gpt-transcribe")
VARIANTS = {
    "plain": PLAIN,
    "pcmu": replace(PLAIN, audio_format="pcmu"),
    "semantic": replace(PLAIN, turn_detection="semantic_vad", eagerness="low"),
    "idle": replace(PLAIN, idle_timeout_ms=6000),
    "languages": replace(PLAIN, languages=("en",)),
    "one language": replace(PLAIN, languages=("en",), transcription_field="language"),
    "quiet": replace(PLAIN, noise_reduction=None, transcription_model=""),
    "cut": replace(PLAIN, truncation=0.8, reasoning_effort="low"),
}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_the_session_update_is_one_that_the_sdk_knows(settings: RealtimeSettings) -> None:
    update = protocol.session_update(settings, "cfg")
    session = CLIENT_EVENT.validate_json(json.dumps(update)).session
    assert session.type == "realtime" and session.audio.output.voice == "alloy"
    input_ = update["session"]["audio"]["input"]
    assert None not in input_["turn_detection"].values()
    assert ("rate" in input_["format"]) == (settings.audio_format == "pcm")


def test_fields_that_exclude_each_other_are_not_sent_together() -> None:
    def input_of(name: str) -> dict[str, Any]:
        return dict(protocol.session_update(VARIANTS[name], "cfg")["session"]["audio"]["input"])

    assert input_of("semantic")["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "low",
        "create_response": True,
        "interrupt_response": True,
    }
    assert "idle_timeout_ms" not in input_of("plain")["turn_detection"]
    assert input_of("idle")["turn_detection"]["idle_timeout_ms"] == 6000
    assert input_of("languages")["transcription"] == {"model": "gpt-transcribe", "languages": ["en"]}
    assert input_of("one language")["transcription"] == {"model": "gpt-transcribe", "language": "en"}
    assert input_of("quiet")["noise_reduction"] is None and "transcription" not in input_of("quiet")
    local = protocol.session_update(replace(PLAIN, barge_in="local"), "cfg")["session"]["audio"]["input"]
    assert (
        not local["turn_detection"]["create_response"] and not local["turn_detection"]["interrupt_response"]
    )
    voice = protocol.session_update(PLAIN, "cfg", listens=False)["session"]
    assert voice["audio"]["input"]["turn_detection"] is None


@pytest.mark.parametrize(
    "event",
    [
        protocol.item_create(protocol.message("user", "Hello.")),
        protocol.item_create(protocol.message("assistant", "Hi.")),
        protocol.item_create(protocol.spoken_message("AAAA")),
        protocol.item_delete("i"),
        protocol.item_truncate("i", 0, 420),
        protocol.function_output("c", "{}"),
        {"type": "response.create", "event_id": "r", "response": protocol.say_exactly("Hello.")},
        {"type": "response.create", "event_id": "r", "response": protocol.read_aloud("Hello.", "1")},
        {"type": "input_audio_buffer.append", "audio": Uplink(PLAIN).push(bytes(320))},
    ],
    ids=lambda event: event["type"],
)
def test_every_other_event_is_one_that_the_sdk_knows(event: dict[str, Any]) -> None:
    assert CLIENT_EVENT.validate_json(json.dumps(event)).type == event["type"]


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://api.openai.com/v1", "wss://api.openai.com/v1/realtime?model=some%2Fmodel"),
        ("http://127.0.0.1:80/v1", "ws://127.0.0.1:80/v1/realtime?model=some%2Fmodel"),
    ],
)
def test_the_address_is_beside_the_rest_one(base: str, url: str) -> None:
    assert protocol.realtime_url(base, "some/model") == url


def test_a_session_with_another_format_is_refused() -> None:
    session = protocol.session_update(PLAIN, "cfg")["session"]
    protocol.check_session(session, PLAIN)
    for wrong in ({"type": "audio/pcmu"}, {}, None):
        session["audio"]["output"]["format"] = wrong
        with pytest.raises(EngineRejected, match="output audio is") as refused:
            protocol.check_session(session, PLAIN)
        assert refused.value.permanent
    session["audio"]["output"]["format"] = {"type": "a\x1b\n" + "x" * 5000}
    with pytest.raises(EngineRejected, match=r"audio is a x{58}, not audio/pcm") as refused:
        protocol.check_session(session, PLAIN)


@pytest.mark.parametrize(("code", "permanent"), [("insufficient_quota", True), ("server_error", False)])
def test_errors_say_code_and_words_on_one_line(code: str, permanent: bool) -> None:
    error = protocol.engine_error({"code": code, "message": "No\n credit " + "x" * 500})
    assert error.permanent == permanent
    assert error.message.startswith(f"{code}: No credit x") and len(error.message) < 240


def tone(ms: int, rate_hz: int) -> bytes:
    count = ms * rate_hz // 1000
    return struct.pack(
        f"<{count}h", *(int(12000 * math.sin(2 * math.pi * 500 * n / rate_hz)) for n in range(count))
    )


def power(pcm: bytes) -> float:
    samples = struct.unpack(f"<{len(pcm) // 2}h", pcm)
    return float(sum(s * s for s in samples)) / len(samples)


@pytest.mark.parametrize("name", ["plain", "pcmu"])
def test_audio_goes_out_in_the_session_s_format(name: str) -> None:
    uplink, pcm = Uplink(VARIANTS[name]), tone(1000, 8000)
    wire = b"".join(base64.b64decode(uplink.push(pcm[i : i + 320])) for i in range(0, len(pcm), 320))
    bytes_per_ms = 48 if name == "plain" else 8
    assert len(wire) / bytes_per_ms == pytest.approx(1000, abs=10)
    if name == "plain":
        assert power(wire[4800:-4800]) == pytest.approx(12000**2 / 2, rel=0.02)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=40), st.sampled_from(["plain", "pcmu"]))
def test_deltas_may_break_anywhere(sizes: list[int], name: str) -> None:
    settings = VARIANTS[name]
    wire = tone(200, 24000) if name == "plain" else bytes(range(256)) * 6
    whole, pieces = Downlink(settings), Downlink(settings)
    expected = whole.push(base64.b64encode(wire).decode()) + whole.flush()
    got, start = b"", 0
    for size in sizes:
        got += pieces.push(base64.b64encode(wire[start : start + size]).decode())
        start += size
    got += pieces.push(base64.b64encode(wire[start:]).decode()) + pieces.flush()
    assert got == expected
    assert pieces.received_ms == whole.received_ms == len(wire) / (48 if name == "plain" else 8)


@pytest.mark.parametrize("delta", ["not base64!", "AAA", "ä"])
def test_a_delta_that_is_not_base64_is_a_value_error(delta: str) -> None:
    with pytest.raises(ValueError, match="not base64"):
        Downlink(PLAIN).push(delta)
