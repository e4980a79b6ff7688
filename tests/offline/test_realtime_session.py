"""The server's side of a Realtime session, without models: the test does the shell's work."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pydantic
import pytest
from openai.types.realtime import RealtimeServerEvent

from ari_app.audio.codec import pcm16_to_ulaw
from ari_app.offline.realtime_audio import alaw_to_pcm16, pcm16_to_alaw
from ari_app.offline.realtime_hearing import Transcribe
from ari_app.offline.realtime_items import MAX_ITEMS
from ari_app.offline.realtime_responses import MAX_RUNNING, Speak, Stop
from ari_app.offline.realtime_session import RealtimeSession, Work

Event = dict[str, Any]
SERVER_EVENT: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(RealtimeServerEvent)

FACTS = "Facts: On Saturday we open from ten to two. A basic service costs sixty euros."
SATURDAY = "On Saturday we open from ten to two."
QUESTION = "What time do you open on Saturday?"
SECOND = bytes(8000)
"""Of output in a G.711 format."""
ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]}
SERVER_VAD = {"type": "server_vad", "prefix_padding_ms": 300, "silence_duration_ms": 500}


def sound(kind: str, ms: int, rate_hz: int = 8000) -> bytes:
    """PCM16: a tone at −10 dBFS, or a line's soft noise."""
    time_s = np.arange(rate_hz * ms // 1000) / rate_hz
    if kind == "speech":
        samples = 0.45 * np.sin(2 * np.pi * 300 * time_s)
    else:
        samples = 0.001 * np.random.default_rng(3).standard_normal(len(time_s))
    pcm: bytes = (samples * 32767).astype("<i2").tobytes()
    return pcm


class Bench:
    """A session on pcmu with transcription; every event it sends is checked against the SDK's types."""

    def __init__(self, turn_detection: Event | None = SERVER_VAD, **session: Any) -> None:
        self.events: list[Event] = []
        self.work: list[Work] = []
        self.session = RealtimeSession(
            "key", "any", 1000, self._take, self.work.append, {"en", "es"}.__contains__
        )
        audio = {
            "input": {
                "format": {"type": "audio/pcmu"},
                "turn_detection": turn_detection,
                "transcription": {"model": "any", "languages": ["en"]},
            },
            "output": {"format": {"type": "audio/pcmu"}},
        }
        self.do(
            "session.update", session={"type": "realtime", "instructions": FACTS, "audio": audio} | session
        )
        assert self.last("session.updated")
        self.events.clear()

    def _take(self, event: Event) -> None:
        SERVER_EVENT.validate_json(json.dumps(event))
        self.events.append(json.loads(json.dumps(event)))

    def do(self, kind: str, **fields: Any) -> None:
        self.session.receive({"type": kind, **fields})

    def hear(self, *sounds: tuple[str, int]) -> None:
        """Append audio in 20 ms packets."""
        for kind, ms in sounds:
            data = pcm16_to_ulaw(sound(kind, ms))
            for start in range(0, len(data), 160):
                audio = base64.b64encode(data[start : start + 160]).decode()
                self.do("input_audio_buffer.append", audio=audio)

    def turn(self, words: str | None = QUESTION) -> str:
        """The caller says something, understood as `words` (None: not yet); returns the item."""
        self.hear(("silence", 400), ("speech", 2000), ("silence", 600))
        item_id: str = self.last("input_audio_buffer.committed")["item_id"]
        if words is not None:
            self.session.understood(item_id, words, "en")
        return item_id

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]

    def last(self, kind: str) -> Event:
        return next(event for event in reversed(self.events) if event["type"] == kind)

    def all(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["type"] == kind]

    def speak(self) -> Speak:
        return next(work for work in reversed(self.work) if isinstance(work, Speak))

    def answer(self, *chunks: tuple[str, bytes]) -> str:
        """The last response is spoken to its end; returns its item."""
        work = self.speak()
        for words, audio in chunks or ((work.text, SECOND),):
            self.session.say(work.response_id, words, audio)
        self.session.finished(work.response_id)
        item_id: str = self.last("response.done")["response"]["output"][0]["id"]
        return item_id

    def done(self) -> Event:
        response: Event = self.last("response.done")["response"]
        return response

    def error(self) -> Event:
        assert self.kinds().count("error") == 1
        error: Event = self.last("error")["error"]
        return error


# --- the session -------------------------------------------------------------------------------------


def test_a_session_begins_with_all_its_settings() -> None:
    events: list[Event] = []
    RealtimeSession("key", "some-model", 1234, events.append, lambda work: None, lambda language: True)
    (created,) = events
    SERVER_EVENT.validate_json(json.dumps(created))
    session = created["session"]
    assert created["type"] == "session.created"
    assert (session["model"], session["expires_at"], session["type"]) == ("some-model", 1234, "realtime")
    assert session["id"].startswith("sess_")
    assert session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}


def test_every_documented_setting_is_echoed_and_the_others_stay() -> None:
    bench = Bench()
    update = {
        "type": "realtime",
        "model": "any",
        "output_modalities": ["text"],
        "tools": [{"type": "function", "name": "hang_up", "parameters": {"type": "object"}}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_output_tokens": 100,
        "truncation": {"type": "retention_ratio", "retention_ratio": 0.5},
        "reasoning": {"effort": "low"},
        "tracing": None,
        "include": ["item.input_audio_transcription.logprobs"],
        "audio": {
            "input": {"noise_reduction": {"type": "far_field"}},
            "output": {"format": {"type": "audio/pcma"}, "voice": {"id": "voice_1"}, "speed": 1.5},
        },
    }
    bench.do("session.update", session=update)
    session = bench.last("session.updated")["session"]
    for name in update.keys() - {"audio"}:
        assert session[name] == update[name]
    assert session["instructions"] == FACTS
    assert session["audio"]["output"] == update["audio"]["output"]  # type: ignore[index]
    assert session["audio"]["input"]["noise_reduction"] == {"type": "far_field"}
    assert session["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert session["audio"]["input"]["turn_detection"] == SERVER_VAD | {
        "threshold": 0.5,
        "create_response": True,
        "interrupt_response": True,
        "idle_timeout_ms": None,
    }


def audio_input(**fields: Any) -> Event:
    return {"audio": {"input": fields}}


@pytest.mark.parametrize(
    ("update", "code", "param"),
    [
        ({"modalities": ["audio"]}, "unknown_parameter", "session.modalities"),
        ({"input_audio_format": "g711_ulaw"}, "unknown_parameter", "session.input_audio_format"),
        ({"temperature": 0.8}, "unknown_parameter", "session.temperature"),
        ({"voice": "alloy"}, "unknown_parameter", "session.voice"),
        ({"type": "transcription"}, "invalid_value", "session.type"),
        ({"type": None}, "invalid_value", "session.type"),
        ({"model": "other"}, "invalid_value", "session.model"),
        ({"output_modalities": ["audio", "text"]}, "invalid_value", "session.output_modalities"),
        ({"instructions": 5}, "invalid_type", "session.instructions"),
        ({"instructions": "x" * 70_000}, "string_above_max_length", "session.instructions"),
        ({"max_output_tokens": 5000}, "invalid_value", "session.max_output_tokens"),
        ({"tools": [{"type": "robot"}]}, "invalid_value", "session.tools[0].type"),
        ({"reasoning": {"effort": "huge"}}, "invalid_value", "session.reasoning.effort"),
        (audio_input(format="pcm16"), "invalid_type", "session.audio.input.format"),
        (audio_input(format={"type": "pcm16"}), "invalid_value", "session.audio.input.format.type"),
        (
            audio_input(format={"type": "audio/pcm"}),
            "missing_required_parameter",
            "session.audio.input.format.rate",
        ),
        (
            audio_input(format={"type": "audio/pcm", "rate": 8000}),
            "invalid_value",
            "session.audio.input.format.rate",
        ),
        (
            audio_input(format={"type": "audio/pcmu", "rate": 8000}),
            "unknown_parameter",
            "session.audio.input.format.rate",
        ),
        (audio_input(format={"type": "audio_pcmu"}), "invalid_value", "session.audio.input.format.type"),
        (
            audio_input(turn_detection={"type": "server/vad"}),
            "invalid_value",
            "session.audio.input.turn_detection.type",
        ),
        (audio_input(format={"type": ["audio/pcmu"]}), "invalid_value", "session.audio.input.format.type"),
        (
            audio_input(turn_detection={"type": "psychic_vad"}),
            "invalid_value",
            "session.audio.input.turn_detection.type",
        ),
        (
            audio_input(turn_detection={"type": "server_vad", "create_response": None}),
            "invalid_type",
            "session.audio.input.turn_detection.create_response",
        ),
        (
            audio_input(turn_detection={"type": "server_vad", "idle_timeout_ms": 100}),
            "invalid_value",
            "session.audio.input.turn_detection.idle_timeout_ms",
        ),
        (
            audio_input(turn_detection={"type": "semantic_vad", "threshold": 0.5}),
            "unknown_parameter",
            "session.audio.input.turn_detection.threshold",
        ),
        (
            audio_input(transcription={"model": "any", "language": "en", "languages": ["en"]}),
            "invalid_value",
            "session.audio.input.transcription",
        ),
        (
            audio_input(transcription={"model": "any", "languages": ["en", "tlh"]}),
            "invalid_value",
            "session.audio.input.transcription.language",
        ),
    ],
)
def test_what_openai_refuses_is_refused_and_nothing_of_it_applies(
    update: Event, code: str, param: str
) -> None:
    bench = Bench()
    bench.do("session.update", event_id="mine", session={"type": "realtime", "prompt": None} | update)
    error = bench.error()
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
    assert error["event_id"] == "mine"
    bench.do("session.update", session={"type": "realtime"})
    assert bench.last("session.updated")["session"]["instructions"] == FACTS


def test_the_voice_stays_once_it_was_heard() -> None:
    bench = Bench()
    change = {"type": "realtime", "audio": {"output": {"voice": "cedar"}}}
    bench.do("session.update", session=change)
    assert bench.last("session.updated")
    bench.turn()
    bench.answer()
    bench.do("session.update", session=change)  # no change
    assert not bench.all("error")
    bench.do("session.update", session={"type": "realtime", "audio": {"output": {"voice": "marin"}}})
    assert bench.error()["code"] == "cannot_update_voice"


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ([], "invalid_type"),
        (None, "invalid_type"),
        ({}, "missing_required_parameter"),
        ({"type": ["a"]}, "invalid_value"),
        ({"type": "response.make"}, "invalid_value"),
        ({"type": "transcription_session.update"}, "invalid_value"),
        ({"type": "session.update"}, "missing_required_parameter"),
        ({"type": "session.update", "session": []}, "invalid_type"),
        ({"type": "response.create", "response": {"modalities": ["text"]}}, "unknown_parameter"),
        ({"type": "response.create", "response": {"conversation": "other"}}, "invalid_value"),
        ({"type": "response.create", "response": {"input": [5]}}, "invalid_type"),
        ({"type": "response.create", "color": "red"}, "unknown_parameter"),
        ({"type": "response.create", "event_id": 5}, "invalid_type"),
        ({"type": "input_audio_buffer.append"}, "missing_required_parameter"),
        ({"type": "input_audio_buffer.append", "audio": 5}, "invalid_type"),
        ({"type": "input_audio_buffer.append", "audio": "@@@"}, "invalid_value"),
        ({"type": "input_audio_buffer.append", "audio": "ü"}, "invalid_value"),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty"),
        ({"type": "conversation.item.create", "item": {"type": "poem"}}, "invalid_value"),
        ({"type": "conversation.item.create", "item": {"type": "message"}}, "invalid_value"),
        ({"type": "conversation.item.create", "item": ITEM, "previous_item_id": "x"}, "item_not_found"),
        ({"type": "conversation.item.delete", "item_id": "x"}, "item_not_found"),
        ({"type": "conversation.item.retrieve", "item_id": "x"}, "item_not_found"),
        (
            {"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 1},
            "item_not_found",
        ),
        ({"type": "response.cancel"}, "response_cancel_not_active"),
        ({"type": "response.cancel", "response_id": "x"}, "response_cancel_not_active"),
    ],
)
def test_a_wrong_event_costs_an_error_only(event: Any, code: str) -> None:
    bench = Bench()
    bench.session.receive(event)
    assert bench.error()["code"] == code
    bench.events.clear()
    bench.turn()
    bench.answer()
    assert bench.done()["status"] == "completed"


# --- the caller's turns ------------------------------------------------------------------------------


def test_a_turn_is_detected_transcribed_and_answered_in_the_documented_order() -> None:
    bench = Bench()
    bench.turn()
    bench.answer(("On Saturday we open ", SECOND), ("from ten to two.", SECOND))
    assert bench.kinds() == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        *("response.output_audio_transcript.delta", "response.output_audio.delta") * 2,
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
        "rate_limits.updated",
    ]
    # 400 ms of silence, less 300 of padding; 2 s of speech, then 500 ms of silence.
    assert bench.last("input_audio_buffer.speech_started")["audio_start_ms"] == 100
    assert bench.last("input_audio_buffer.speech_stopped")["audio_end_ms"] == 400 + 2000 + 500
    user = bench.last("input_audio_buffer.committed")["item_id"]
    assert {
        bench.last(f"input_audio_buffer.speech_{what}")["item_id"] for what in ("started", "stopped")
    } == {user}
    heard = bench.last("conversation.item.input_audio_transcription.completed")
    assert (heard["item_id"], heard["transcript"], heard["usage"]["type"]) == (user, QUESTION, "duration")
    assert heard["usage"]["seconds"] == pytest.approx(2.6, abs=0.1)
    added = bench.all("conversation.item.added")[1]
    assert added["previous_item_id"] == user
    response = bench.done()
    assert response["output"][0]["content"] == [{"type": "output_audio", "transcript": SATURDAY}]
    usage = response["usage"]
    assert usage["output_token_details"] == {"text_tokens": 8, "audio_tokens": 40}
    assert usage["input_token_details"]["audio_tokens"] == pytest.approx(26, abs=1)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    ids = [event["event_id"] for event in bench.events]
    assert len(set(ids)) == len(ids)


def test_the_turns_audio_is_transcribed_once_even_when_nobody_reads_it() -> None:
    bench = Bench()
    bench.do("session.update", session={"type": "realtime"} | audio_input(transcription=None))
    bench.turn()
    (work,) = (work for work in bench.work if isinstance(work, Transcribe))
    assert len(work.pcm) == pytest.approx(16 * 2600, abs=16 * 100)
    assert work.languages == []
    assert not any("transcription" in kind for kind in bench.kinds())
    assert bench.speak().text == SATURDAY


@pytest.mark.parametrize(
    ("settings", "silence_ms"),
    [
        (SERVER_VAD, 500),
        ({"type": "server_vad", "silence_duration_ms": 200}, 200),
        ({"type": "semantic_vad", "eagerness": "low"}, 2000),
        ({"type": "semantic_vad", "eagerness": "medium"}, 1000),
        ({"type": "semantic_vad"}, 1000),
        ({"type": "semantic_vad", "eagerness": "high"}, 500),
    ],
)
def test_silence_ends_a_turn_when_it_is_as_long_as_asked(settings: Event, silence_ms: int) -> None:
    bench = Bench(settings)
    bench.hear(("speech", 1000), ("silence", silence_ms - 20))
    assert not bench.all("input_audio_buffer.speech_stopped")
    bench.hear(("silence", 20))
    assert bench.last("input_audio_buffer.speech_stopped")["audio_end_ms"] == 1000 + silence_ms


@pytest.mark.parametrize(("threshold", "heard"), [(0.3, True), (0.5, False)])
def test_a_lower_threshold_hears_softer_speech(threshold: float, heard: bool) -> None:
    bench = Bench({"type": "server_vad", "threshold": threshold})
    soft = (np.frombuffer(sound("speech", 1000), "<i2") // 50).astype("<i2").tobytes()  # -44 dBFS
    bench.do(
        "session.update",
        session={"type": "realtime"} | audio_input(format={"type": "audio/pcm", "rate": 24000}),
    )
    wide = np.repeat(np.frombuffer(soft, "<i2"), 3).tobytes()
    bench.do("input_audio_buffer.append", audio=base64.b64encode(wide).decode())
    assert bool(bench.all("input_audio_buffer.speech_started")) is heard


@pytest.mark.parametrize("wire_format", ["audio/pcm", "audio/pcmu", "audio/pcma"])
@pytest.mark.parametrize("step", [1, 333, 10**6])
def test_each_format_in_any_pieces_keeps_the_clock(wire_format: str, step: int) -> None:
    if step == 1 and wire_format == "audio/pcm":
        step = 101  # odd; a byte at a time would only be slow
    rate_hz = 24000 if wire_format == "audio/pcm" else 8000
    pcm = sound("silence", 1000, rate_hz) + sound("speech", 400, rate_hz)
    encoders: dict[str, Callable[[bytes], bytes]]
    encoders = {"audio/pcm": bytes, "audio/pcmu": pcm16_to_ulaw, "audio/pcma": pcm16_to_alaw}
    rate = {"rate": rate_hz} if wire_format == "audio/pcm" else {}
    bench = Bench()
    bench.do(
        "session.update", session={"type": "realtime"} | audio_input(format={"type": wire_format} | rate)
    )
    data = encoders[wire_format](pcm)
    for start in range(0, len(data), step):
        audio = base64.b64encode(data[start : start + step]).decode()
        bench.do("input_audio_buffer.append", audio=audio)
    assert bench.last("input_audio_buffer.speech_started")["audio_start_ms"] in (680, 700, 720)


def test_a_law_is_that_of_the_standard() -> None:
    # ITU-T G.711, table 1a: decision and output values of 13 bits, here of 16; even bits inverted.
    known = {0xD5: 8, 0x55: -8, 0xD4: 24, 0xC5: 264, 0xAA: 32256, 0x2A: -32256}
    for code, sample in known.items():
        assert np.frombuffer(alaw_to_pcm16(bytes([code])), "<i2")[0] == sample
    codes = bytes(range(256))
    assert pcm16_to_alaw(alaw_to_pcm16(codes)) == codes
    ramp = np.arange(-32768, 32768).astype("<i2")
    error = np.abs(np.frombuffer(alaw_to_pcm16(pcm16_to_alaw(ramp.tobytes())), "<i2").astype(int) - ramp)
    assert np.all(error <= np.maximum(8, np.abs(ramp.astype(int)) / 32))


@pytest.mark.parametrize("words", ["", "...", "Thank you for watching! " * 9])
def test_a_turn_without_words_ends_with_an_empty_transcript_and_no_response(words: str) -> None:
    bench = Bench()
    item_id = bench.turn(words)
    heard = bench.last("conversation.item.input_audio_transcription.completed")
    assert (heard["item_id"], heard["transcript"]) == (item_id, "")
    assert not bench.all("response.created")
    bench.events.clear()
    bench.turn()
    bench.answer()
    assert bench.done()["output"][0]["content"][0]["transcript"] == SATURDAY


def test_failed_speech_to_text_is_told_and_not_answered() -> None:
    bench = Bench()
    item_id = bench.turn(None)
    bench.session.not_understood(item_id, "It broke.")
    failed = bench.last("conversation.item.input_audio_transcription.failed")
    assert (failed["item_id"], failed["error"]["message"]) == (item_id, "It broke.")
    assert not bench.all("response.created")


def test_without_create_response_the_client_decides() -> None:
    bench = Bench(SERVER_VAD | {"create_response": False})
    bench.turn()
    assert not bench.all("response.created")
    bench.do("response.create")
    assert bench.speak().text == SATURDAY


def test_a_turn_understood_while_the_caller_goes_on_is_answered_with_the_next() -> None:
    bench = Bench()
    first = bench.turn(None)
    bench.hear(("speech", 400))
    bench.session.understood(first, QUESTION, "en")
    assert not bench.all("response.created")
    bench.hear(("silence", 600))
    second = bench.last("input_audio_buffer.committed")["item_id"]
    bench.session.understood(second, "", "en")  # a cough: the question is still to be answered
    assert bench.speak().text == SATURDAY
    assert len(bench.all("response.created")) == 1


def test_a_response_waits_until_all_turns_are_understood() -> None:
    bench = Bench()
    first, second = bench.turn(None), bench.turn(None)
    bench.session.understood(second, "And how much is a basic service?", "en")
    assert not bench.all("response.created")
    bench.session.understood(first, QUESTION, "en")
    assert "sixty euros" in bench.speak().text
    assert len(bench.all("response.created")) == 1


def test_a_response_the_client_asked_for_meanwhile_is_the_answer() -> None:
    bench = Bench()
    item_id = bench.turn(None)
    bench.do("response.create")
    bench.session.understood(item_id, QUESTION, "en")
    assert bench.speak().text == SATURDAY
    bench.answer()
    assert not bench.all("error")
    assert len(bench.all("response.created")) == 1


def test_a_response_out_of_band_is_not_the_answer() -> None:
    bench = Bench()
    bench.turn()
    bench.hear(("speech", 400))  # cuts the answer before its first sound
    bench.do("response.create", response={"conversation": "none", "instructions": "Say exactly: Note."})
    bench.hear(("silence", 600))
    bench.session.understood(bench.last("input_audio_buffer.committed")["item_id"], "", "en")
    assert bench.speak().text == SATURDAY


def test_without_turn_detection_the_client_commits() -> None:
    bench = Bench(None)
    bench.hear(("silence", 400), ("speech", 1000), ("silence", 2000))
    assert bench.kinds() == []
    bench.do("input_audio_buffer.commit")
    committed = bench.last("input_audio_buffer.committed")
    assert committed["previous_item_id"] is None
    bench.do("response.create")
    assert bench.kinds()[-1] == "response.created", "it waits for the words"
    bench.session.understood(committed["item_id"], QUESTION, "en")
    assert bench.speak().text == SATURDAY
    bench.do("input_audio_buffer.commit", event_id="again")
    assert bench.error()["event_id"] == "again"
    assert "at least 100ms" in bench.error()["message"]


def test_clear_forgets_the_audio_but_not_the_clock() -> None:
    bench = Bench()
    bench.hear(("speech", 1000))
    bench.do("input_audio_buffer.clear")
    bench.do("input_audio_buffer.commit")
    assert bench.error()["code"] == "input_audio_buffer_commit_empty"
    bench.hear(("silence", 1000), ("speech", 500))
    assert bench.last("input_audio_buffer.speech_started")["audio_start_ms"] == 1700


def test_a_commit_in_mid_speech_makes_the_announced_item() -> None:
    bench = Bench()
    bench.hear(("speech", 1000))
    bench.do("input_audio_buffer.commit")
    announced = bench.last("input_audio_buffer.speech_started")["item_id"]
    assert bench.last("input_audio_buffer.committed")["item_id"] == announced


def test_audio_that_nobody_commits_is_bounded() -> None:
    bench = Bench(None)
    second = base64.b64encode(bytes(8000)).decode()
    for _ in range(130):
        bench.do("input_audio_buffer.append", audio=second)
    bench.do("input_audio_buffer.commit")
    (work,) = (work for work in bench.work if isinstance(work, Transcribe))
    assert len(work.pcm) == 120 * 16_000


def test_turn_detection_can_be_changed_in_the_middle_of_a_turn() -> None:
    bench = Bench()
    bench.hear(("speech", 500))
    slow = {"type": "server_vad", "silence_duration_ms": 1000}
    bench.do("session.update", session={"type": "realtime"} | audio_input(turn_detection=slow))
    bench.hear(("silence", 500))
    assert bench.all("input_audio_buffer.speech_stopped"), "this turn ends as it began"
    bench.hear(("speech", 500), ("silence", 980))
    assert len(bench.all("input_audio_buffer.speech_stopped")) == 1
    bench.hear(("silence", 20))
    assert len(bench.all("input_audio_buffer.speech_stopped")) == 2


# --- interruptions -----------------------------------------------------------------------------------


def test_speech_cancels_the_response() -> None:
    bench = Bench()
    bench.turn()
    work = bench.speak()
    bench.session.say(work.response_id, "On Saturday ", SECOND)
    bench.hear(("speech", 500))
    assert Stop(work.response_id) in bench.work
    response = bench.done()
    assert response["status"] == "cancelled"
    assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert response["output"][0]["status"] == "incomplete"
    count = len(bench.events)
    bench.session.say(work.response_id, "we open", SECOND)
    bench.session.finished(work.response_id)
    bench.session.failed(work.response_id, "late")
    assert len(bench.events) == count, "nothing follows response.done"


def test_an_answer_cut_before_its_first_sound_is_given_after_the_noise() -> None:
    bench = Bench()
    bench.turn()
    bench.turn("")
    assert bench.all("response.done")[0]["response"]["status"] == "cancelled"
    assert len(bench.all("response.created")) == 2
    assert bench.speak().text == SATURDAY


def test_without_interrupt_response_it_goes_on_and_a_second_one_is_an_error() -> None:
    bench = Bench(SERVER_VAD | {"interrupt_response": False})
    bench.turn()
    bench.turn()
    assert bench.error()["code"] == "conversation_already_has_active_response"
    bench.answer()
    assert bench.done()["status"] == "completed"


def test_cancel_by_the_client() -> None:
    bench = Bench()
    bench.turn()
    bench.do("response.cancel")
    assert bench.done()["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    bench.do("response.cancel", event_id="late")
    assert (bench.error()["code"], bench.error()["event_id"]) == ("response_cancel_not_active", "late")


@pytest.mark.parametrize(
    ("audio_end_ms", "heard"),
    [(0, ""), (999, ""), (1000, "On Saturday"), (1999, "On Saturday"), (2000, SATURDAY)],
)
def test_a_truncated_item_keeps_the_words_that_were_heard(audio_end_ms: int, heard: str) -> None:
    bench = Bench()
    bench.turn()
    item_id = bench.answer(("On Saturday ", SECOND), ("we open from ten to two.", SECOND))
    cut = {"item_id": item_id, "content_index": 0, "audio_end_ms": audio_end_ms}
    bench.do("conversation.item.truncate", **cut)
    told = bench.last("conversation.item.truncated")
    assert {name: told[name] for name in cut} == cut
    bench.do("conversation.item.retrieve", item_id=item_id)
    item = bench.last("conversation.item.retrieved")["item"]
    assert item["content"][0]["transcript"] == heard
    bench.turn("Could you repeat that, please?")
    if heard:
        assert bench.speak().text == heard, "the chat knows what was heard"


def test_a_truncation_beyond_the_end_is_an_error() -> None:
    bench = Bench()
    bench.turn()
    item_id = bench.answer()
    bench.do("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=1001)
    error = bench.error()
    assert error["message"] == "Audio content of 1000ms is already shorter than 1001ms"
    assert error["code"] is None
    user = bench.last("input_audio_buffer.committed")["item_id"]
    bench.events.clear()
    bench.do("conversation.item.truncate", item_id=user, content_index=0, audio_end_ms=0)
    assert bench.error()["code"] == "invalid_value"


def test_an_item_truncated_while_it_is_spoken_does_not_grow_again() -> None:
    bench = Bench(SERVER_VAD | {"interrupt_response": False})
    bench.turn()
    work = bench.speak()
    bench.session.say(work.response_id, "On Saturday ", SECOND)
    item_id = bench.last("response.output_item.added")["item"]["id"]
    bench.do("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=500)
    bench.session.say(work.response_id, "we open", SECOND)
    bench.do("conversation.item.retrieve", item_id=item_id)
    assert bench.last("conversation.item.retrieved")["item"]["content"][0]["transcript"] == ""


# --- items -------------------------------------------------------------------------------------------


def test_items_stand_where_they_were_put() -> None:
    bench = Bench()
    for item_id, previous in (("b", None), ("a", "root"), ("d", None), ("c", "b")):
        bench.do("conversation.item.create", item=ITEM | {"id": item_id}, previous_item_id=previous)
    places = {
        event["item"]["id"]: event["previous_item_id"] for event in bench.all("conversation.item.added")
    }
    assert places == {"b": None, "a": None, "d": "b", "c": "b"}
    bench.do("conversation.item.create", item=ITEM | {"id": "c"})
    assert bench.error()["code"] == "item_already_exists"
    bench.do("conversation.item.delete", item_id="d")
    assert bench.last("conversation.item.deleted")["item_id"] == "d"
    bench.do("conversation.item.create", item=ITEM | {"id": "e"})
    assert bench.last("conversation.item.done")["previous_item_id"] == "c"


@pytest.mark.parametrize(
    "item",
    [
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello!"}]},
        {"type": "function_call", "name": "find", "call_id": "call_1", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": '{"found": false}'},
    ],
)
def test_items_of_every_kind_are_taken(item: Event) -> None:
    bench = Bench()
    bench.do("conversation.item.create", item=item)
    assert bench.kinds() == ["conversation.item.added", "conversation.item.done"]
    assert bench.events[0]["item"].items() >= item.items()
    bench.do("conversation.item.create", item=ITEM)
    bench.do("response.create")
    assert bench.speak().text == SATURDAY


@pytest.mark.parametrize(
    ("role", "part"),
    [
        ("assistant", {"type": "output_audio", "audio": ""}),
        ("assistant", {"type": "text", "text": "beta"}),
        ("user", {"type": "input_image", "image_url": "data:"}),
        ("user", {"type": "text", "text": "beta"}),
        ("system", {"type": "input_audio", "audio": ""}),
    ],
)
def test_content_of_the_wrong_kind_is_refused(role: str, part: Event) -> None:
    bench = Bench()
    bench.do("conversation.item.create", item={"type": "message", "role": role, "content": [part]})
    assert bench.error()["param"] == "item.content[0].type"
    assert bench.kinds() == ["error"]


def test_audio_of_an_item_is_understood_before_the_answer() -> None:
    bench = Bench()
    audio = base64.b64encode(bytes(8000)).decode()
    content = [{"type": "input_audio", "audio": audio}]
    bench.do("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    (work,) = bench.work
    assert isinstance(work, Transcribe)
    assert len(work.pcm) == 16_000
    bench.do("response.create")
    bench.session.understood(work.item_id, QUESTION, "en")
    assert bench.speak().text == SATURDAY


def test_deleting_what_is_not_yet_understood_lets_the_response_begin() -> None:
    bench = Bench()
    bench.do("conversation.item.create", item=ITEM)
    item_id = bench.turn(None)
    bench.do("response.create")
    bench.do("conversation.item.delete", item_id=item_id)
    assert bench.speak().text == SATURDAY
    bench.session.understood(item_id, "late", "en")
    assert not bench.all("error")


def test_the_conversation_is_bounded() -> None:
    bench = Bench()
    for number in range(MAX_ITEMS + 1):
        bench.do("conversation.item.create", item=ITEM | {"id": f"item_{number}"})
    bench.do("conversation.item.retrieve", item_id="item_1")
    assert not bench.all("error")
    bench.do("conversation.item.retrieve", item_id="item_0")
    assert bench.error()["code"] == "item_not_found"


# --- responses ---------------------------------------------------------------------------------------


def test_only_one_response_continues_the_conversation() -> None:
    bench = Bench()
    bench.do("conversation.item.create", item=ITEM)
    bench.do("response.create")
    bench.do("response.create", event_id="second")
    error = bench.error()
    assert (error["code"], error["event_id"]) == ("conversation_already_has_active_response", "second")
    bench.answer()
    bench.do("response.create")
    assert len(bench.all("response.created")) == 2


def test_responses_out_of_band_run_beside_it_and_leave_no_item() -> None:
    bench = Bench()
    bench.do("conversation.item.create", item=ITEM)
    bench.do("response.create")
    default = bench.speak()
    aside = {"conversation": "none", "metadata": {"segment": "7"}, "input": []}
    for _ in range(MAX_RUNNING - 1):
        bench.do("response.create", response=aside)
    bench.do("response.create", response=aside)
    assert bench.error()["code"] == "rate_limit_exceeded"
    bench.events.clear()
    bench.answer()
    response = bench.done()
    assert (response["conversation_id"], response["metadata"]) == (None, {"segment": "7"})
    assert not any(kind.startswith("conversation.item") for kind in bench.kinds())
    bench.hear(("speech", 500))
    assert bench.done()["id"] == default.response_id, "speech cancels the default response only"
    assert len(bench.all("response.done")) == 2
    bench.do("response.cancel", response_id=bench.speak().response_id)
    assert bench.error()["code"] == "response_cancel_not_active"


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (
            {"instructions": "Say exactly: Please hold. I am <b>looking</b>."},
            "Please hold. I am <b>looking</b>.",
        ),
        (
            {
                "conversation": "none",
                "instructions": "Read the user's text aloud word for word. Add nothing.",
                "input": [ITEM],
            },
            QUESTION,
        ),
        ({"conversation": "none", "instructions": f"{FACTS} word for word", "input": [ITEM, ITEM]}, SATURDAY),
        ({"conversation": "none", "input": [ITEM]}, SATURDAY),
        ({"conversation": "none", "input": [{"type": "item_reference", "id": "known"}]}, "sixty"),
        ({"instructions": "Facts: A basic service costs ninety euros."}, "ninety"),
        ({}, "sixty"),
    ],
)
def test_what_a_response_says(response: Event, said: str) -> None:
    bench = Bench()
    question = ITEM | {"id": "known", "content": [{"type": "input_text", "text": "What is a basic service?"}]}
    bench.do("conversation.item.create", item=question)
    bench.do("response.create", response=response)
    assert said in bench.speak().text


def test_a_response_has_its_own_voice_and_format() -> None:
    bench = Bench()
    output = {"voice": "es-ES", "format": {"type": "audio/pcma"}}
    bench.do("response.create", response={"audio": {"output": output}})
    assert (bench.speak().voice, bench.speak().format) == ("es-ES", {"type": "audio/pcma"})
    assert bench.last("response.created")["response"]["audio"]["output"] == output


def test_text_has_no_audio() -> None:
    bench = Bench()
    bench.do("conversation.item.create", item=ITEM)
    bench.do("response.create", response={"output_modalities": ["text"]})
    assert not bench.work
    assert "".join(event["delta"] for event in bench.all("response.output_text.delta")).strip() == SATURDAY
    assert bench.last("response.output_text.done")["text"] == SATURDAY
    assert bench.done()["output"][0]["content"] == [{"type": "output_text", "text": SATURDAY}]
    assert not any("audio" in kind for kind in bench.kinds())


def test_a_response_ends_at_its_most_tokens() -> None:
    bench = Bench(max_output_tokens=30)
    bench.turn()
    work = bench.speak()
    bench.session.say(work.response_id, "On Saturday ", SECOND)
    bench.session.say(work.response_id, "we open", SECOND)
    response = bench.done()
    assert response["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert response["usage"]["output_tokens"] == 22
    assert Stop(work.response_id) in bench.work


def test_a_response_that_fails_is_told_and_the_next_one_works() -> None:
    bench = Bench()
    bench.turn()
    bench.session.failed(bench.speak().response_id, "No voice.")
    details = bench.done()["status_details"]
    assert (bench.done()["status"], details["error"]["message"]) == ("failed", "No voice.")
    bench.turn()
    bench.answer()
    assert bench.done()["status"] == "completed"


# --- the idle timeout --------------------------------------------------------------------------------


def test_a_silent_caller_is_spoken_to_when_the_answer_was_played_and_the_timeout_passed() -> None:
    bench = Bench(SERVER_VAD | {"idle_timeout_ms": 5000})
    bench.hear(("silence", 6000))
    assert not bench.events, "nobody has spoken yet"
    bench.do("response.create", response={"instructions": "Say exactly: Hello."})
    bench.answer(("Hello.", SECOND * 2))
    bench.hear(("silence", 6980))
    assert not bench.all("input_audio_buffer.timeout_triggered")
    bench.events.clear()
    bench.hear(("silence", 20))
    silence = bench.last("input_audio_buffer.timeout_triggered")
    assert (silence["audio_start_ms"], silence["audio_end_ms"]) == (8000, 13_000)
    assert bench.last("input_audio_buffer.committed")["item_id"] == silence["item_id"]
    assert bench.last("response.created")
    assert "did not catch" in bench.speak().text


def test_after_a_noise_the_caller_is_waited_for_again() -> None:
    bench = Bench(SERVER_VAD | {"idle_timeout_ms": 5000})
    bench.turn()
    bench.answer()
    bench.turn("")
    bench.hear(("silence", 4980))
    assert not bench.all("input_audio_buffer.timeout_triggered")
    bench.hear(("silence", 20))
    assert bench.all("input_audio_buffer.timeout_triggered")


def test_the_caller_is_not_waited_for_while_the_client_owes_the_answer() -> None:
    bench = Bench(SERVER_VAD | {"idle_timeout_ms": 5000, "create_response": False})
    bench.do("response.create")
    bench.answer()
    bench.turn()
    bench.hear(("silence", 9000))
    assert not bench.all("input_audio_buffer.timeout_triggered")


def test_a_caller_who_speaks_is_not_timed_out() -> None:
    bench = Bench(SERVER_VAD | {"idle_timeout_ms": 5000})
    bench.turn()
    bench.answer()
    bench.hear(("silence", 4000))
    bench.hear(*[("speech", 1000)] * 6)
    assert not bench.all("input_audio_buffer.timeout_triggered")
