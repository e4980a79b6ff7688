"""What meets bytes from outside, each with what must be true whatever comes.

A target takes bytes, and raises when something is not as it should be. What a parser may refuse it refuses with its
own error, which is no fault. Not among them: the SIP of the browser's telephone, which is handed on unread, and of the
demo's caller; ARI's WebSocket below its events; speech models.
"""

from __future__ import annotations

import json
import struct
import tempfile
import wave
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from ari_app.ari.events import parse_bridge, parse_channel, parse_event
from ari_app.ari.faults import ari_error
from ari_app.ari.rest import MAX_REASON_CHARS, dialplan_safe
from ari_app.ari.streams import spare, streams_in
from ari_app.audio.codec import slin_to_pcm16
from ari_app.audio.format import FRAME_BYTES
from ari_app.errors import AriError, ConfigError, EngineError
from ari_app.logs import mask_number
from ari_app.openai_api.tts import SpeechBody
from ari_app.parsers import parse_dotenv
from ari_app.prices import cost_of, parse_prices
from ari_app.record.archive import read_events, summary
from ari_app.record.report import story, table
from ari_app.rtp.packet import RtpPacket, parse_rtp
from ari_app.rtp.quality import parse_quality
from ari_app.rtp.receive import ReceiveStream
from ari_app.settings import SETTINGS
from ari_app.texts import clean, escaped, one_line, shown
from tests.fakes.realtime_talk import Talk
from tests.fuzz.engines import ANSWERS, FRAMES, engine_answer, realtime_frames
from tests.fuzz.files import (
    HEADS,
    NUMBERS,
    SOUNDS,
    dialling,
    sealed_file,
    sound_file,
)
from tests.fuzz.servers import (
    EVENTS,
    OFFLINE_REQUESTS,
    WEB_REQUESTS,
    offline_events,
    offline_request,
    web_request,
)

PEER = ("127.0.0.1", 40000)
TICK_S = 0.02
MOST_STREAMS = 2**15
"""Two ports each."""
MOST_FRAMES_PER_PACKET = 60
"""What one datagram may bring: 200 ms of sound, and silence for the time before it."""


def rtp_packet(data: bytes) -> None:
    """What is accepted means the same when it is written and read again."""
    try:
        packet = parse_rtp(data)
    except ValueError:
        return
    assert len(packet.payload) < len(data)
    plain = RtpPacket(
        packet.payload_type,
        packet.sequence_number,
        packet.timestamp,
        packet.ssrc,
        packet.payload,
        packet.marker,
    )
    if plain.payload:
        assert parse_rtp(plain.to_bytes()).payload == packet.payload


def rtp_stream(data: bytes) -> None:
    """Datagrams of any kind, one per tick: time goes on, frames are whole, and there are never too many."""
    stream = ReceiveStream(slin_to_pcm16, started_at=0.0)
    stream.lock(PEER)
    now, taken = 0.0, 0
    while data:
        length, data = data[0] * 2, data[1:]
        datagram, data = data[:length], data[length:]
        now += TICK_S
        stream.push(datagram, PEER, now)
        frames = stream.take(now)
        assert all(len(frame) == FRAME_BYTES for frame in frames) and len(frames) <= MOST_FRAMES_PER_PACKET
        taken += len(frames)
    for _ in range(50):
        now += TICK_S
        taken += len(stream.take(now))
    assert taken >= (now - 0.5) / TICK_S - 50, "time stood still"
    assert sum(vars_of(stream.counters)) < 10**6


def vars_of(counters: Any) -> list[int]:
    return [getattr(counters, name) for name in counters.__slots__]


def ari_event(data: bytes) -> None:
    """An event, or one clear refusal."""
    for parse in (parse_event, _parsed(parse_channel), _parsed(parse_bridge)):
        try:
            parse(data)
        except ValueError as refusal:
            assert len(str(refusal)) < 500


def ari_reply(data: bytes) -> None:
    """A refusal in Asterisk's words, figures of a line, and the ports of rtp.conf, a line each."""
    text = data.decode("utf-8", "replace")
    error = ari_error("do something", 400 + len(data) % 200, text)
    assert isinstance(error, AriError) and len(str(error)) < 2000
    value = _json(data)
    if isinstance(value, dict):
        quality = parse_quality(value)
        assert quality.lost_percent <= 100 and quality.lost_percent_there <= 100
    first, _, last = text.partition("\n")
    try:
        streams = streams_in(first, last)
    except ValueError:
        return
    assert 0 <= spare(streams) < streams <= MOST_STREAMS


def speech_body(data: bytes) -> None:
    """An answer of text-to-speech in pieces: whole samples, never more than came in."""
    kind, _, body = data.partition(b"\n")
    try:
        parser = SpeechBody(kind.decode("latin-1"), 24_000)
        given = b"".join(parser.push(body[at : at + 7]) for at in range(0, len(body), 7))
    except EngineError:
        return
    assert len(given) % 2 == 0 and len(given) <= len(body)
    assert 4000 <= parser.rate_hz <= 200_000


def realtime_events(data: bytes) -> None:
    """Lines of JSON as a server's events: each is taken or passed over, and the next session answers the caller."""
    talk = Talk()
    session = talk.begin()
    for line in data.split(b"\n")[:20]:
        event = _json(line)
        if isinstance(event, dict):
            talk.core.push_event(event, talk.now)
        talk.silence(40)
    json.dumps(list(session.sent))
    talk.lose()
    _answers_the_caller(talk)


def _answers_the_caller(talk: Talk) -> None:
    """In a session of a healthy server, unless the caller has been told that nothing can be done."""
    session = talk.begin()
    if talk.core.giving_up:
        return
    for number, _ in enumerate(session.of("response.create")):  # what the last session owed
        talk.answers(f"owed{number}", "Yes.", ms=100)
    talk.event("input_audio_buffer.speech_started", item_id="healthy-turn", audio_start_ms=talk.clock_ms)
    talk.silence(40)
    talk.end_turn("healthy-turn")
    talk.transcribed("healthy-turn", "Hello?")
    talk.answers("healthy", "Good day.", ms=200)
    talk.silence(200)
    assert talk.playout.sent.count("healthy-item") >= 5, "the caller was not answered"
    json.dumps(list(session.sent))


def texts(data: bytes) -> None:
    """Words of callers and engines in every place where they are shown."""
    text = data.decode("utf-8", "surrogatepass" if len(data) % 2 else "replace") if _decodes(data) else ""
    assert len(clean(text)) == len(text)
    assert "\n" not in escaped(text) and "\x1b" not in shown(text) and "\n" not in shown(text)
    assert len(one_line(text, 20)) <= 20
    safe = dialplan_safe(text)
    assert len(safe) <= MAX_REASON_CHARS and not set(safe) & set("${}()[],;\"'|&\\`<>=!*/\n\r")
    assert not any(char.isdigit() for char in mask_number(text)[:-3])


def settings(data: bytes) -> None:
    """A `.env`, and values of every setting: a value, or a sentence."""
    text = data.decode("utf-8", "replace")
    try:
        parse_dotenv(Path(".env"), text)
    except ConfigError as refusal:
        assert len(str(refusal)) < 1000
    for setting in SETTINGS:
        try:
            setting.parse(text[:64])
        except ValueError as refusal:
            assert str(refusal)


def prices(data: bytes) -> None:
    """A file of prices."""
    try:
        models = parse_prices(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return
    for known in models.values():
        cost = cost_of({"text_in": 5, "audio_ms": 1000, "characters": 9}, known)
        assert cost is None or cost >= 0


def past_call(data: bytes) -> None:
    """A folder that holds anything at all, as `calls` reads it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "serve_20261123-120000_b2a278198cc3"
        folder.mkdir()
        (folder / "events.jsonl").write_bytes(data)
        events = read_events(folder)
        call = summary(folder.name, events)
        if call is not None:
            assert table([call]) and "\x1b" not in "\n".join(story(call, events))


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _parsed(parse: Callable[[Any], object]) -> Callable[[bytes], object]:
    return lambda data: parse(_json(data))


def _decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass" if len(data) % 2 else "replace")
    except UnicodeDecodeError:
        return False
    return True


def _wav() -> bytes:
    target = BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(bytes(64))
    return target.getvalue()


def _packet(number: int) -> bytes:
    return RtpPacket(10, number, number * 160, 7, struct.pack(">160h", *range(160))).to_bytes()


_CHANNEL = b'{"id": "1.1", "name": "PJSIP/x-1", "state": "Up", "caller": {"number": "1"}, "dialplan": {}}'
TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "rtp_packet": (rtp_packet, [_packet(1), b"\x90" + _packet(2)[1:] + b"\x00\x01\x00\x01abcd", b"\x80"]),
    "rtp_stream": (
        rtp_stream,
        [b"".join(bytes([166]) + _packet(n) for n in range(4)), bytes([6]) + _packet(1)[:12], b"\x00\x00"],
    ),
    "ari_event": (
        ari_event,
        [
            b'{"type": "StasisStart", "args": ["inbound", "100"], "channel": ' + _CHANNEL + b"}",
            b'{"type": "ChannelDestroyed", "cause": 16, "cause_txt": "x", "channel": ' + _CHANNEL + b"}",
            b'{"type": "ChannelHold", "channel": ' + _CHANNEL + b"}",
            b'{"id": "b", "name": "", "channels": ["1.1"]}',
            _CHANNEL,
        ],
    ),
    "ari_reply": (
        ari_reply,
        [
            b'{"message": "Channel not found"}',
            b'{"rxcount": 5, "rxploss": Infinity, "rtt": NaN}',
            b'{"rxcount": 5, "rxploss": 1, "rtt": 0.1}',
            b"<html>",
            b"10000\n20000",
        ],
    ),
    "speech_body": (
        speech_body,
        [b"audio/wav\n" + _wav(), b"audio/pcm;rate=24000\n" + bytes(99), b"text/html\n<"],
    ),
    "realtime_events": (
        realtime_events,
        [
            b'{"type": "input_audio_buffer.speech_started", "item_id": "i", "audio_start_ms": 5}\n'
            b'{"type": "input_audio_buffer.committed", "item_id": "i"}',
            b'{"type": "response.created", "response": {"id": "r"}}\n'
            b'{"type": "response.output_audio.delta", "response_id": "r", "item_id": "x", "delta": "AAAA"}\n'
            b'{"type": "response.done", "response": {"id": "r", "status": "completed", "output": []}}',
            b'{"type": "error", "error": {"code": "x", "message": "y"}}',
        ],
    ),
    "texts": (texts, ["¿qué? 漢 +4930123456".encode(), b"\x1b[2Ja\nERROR", b"${SHELL(x)}"]),
    "settings": (
        settings,
        [b"ARI_URL=http://127.0.0.1:8088\nGREETING='a'", b"40000-40999", b"PJSIP/{number}@trunk"],
    ),
    "prices": (prices, [b'{"m": {"text_in": 1.0, "text_out": 2}}', b'{"m": {"minute": 0.1}}', b"[]"]),
    "past_call": (
        past_call,
        [
            b'{"event": "call", "direction": "inbound", "from": "1", "audio_ms": 0}\n'
            b'{"event": "turn_timed", "turn": 1, "speech_end_at": 1.0, "endpoint_at": 2.0, "first_frame_at": 2.1}\n'
            b'{"event": "engine_used", "stage": "chat", "model": "m", "amounts": {"text_in": 5}, "cost_usd": null}\n'
            b'{"event": "ended", "outcome": "answered", "reason": "r", "line": {"mos": 4.0}, "audio_ms": 99}\n',
            b'{"event": "bot_said", "turn": 1, "text": "a", "heard": "a", "interrupted": false, "audio_ms": 5}',
        ],
    ),
}
TARGETS |= {
    "engine_answer": (engine_answer, ANSWERS),
    "realtime_frames": (realtime_frames, FRAMES),
    "web_request": (web_request, WEB_REQUESTS),
    "dialling": (dialling, NUMBERS),
    "sound_file": (sound_file, SOUNDS),
    "sealed_file": (sealed_file, HEADS),
    "offline_request": (offline_request, OFFLINE_REQUESTS),
    "offline_events": (offline_events, EVENTS),
}
"""By name: the target, and inputs to begin with."""
