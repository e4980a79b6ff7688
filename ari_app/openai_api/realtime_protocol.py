"""OpenAI's Realtime protocol in its GA shape: our settings and wishes to events, audio to and from base64. Core.

Every field of the session is sent, because the server's defaults differ between its own documents; but no null
stands inside an object, because the server refuses those.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from ari_app.audio.codec import pcm16_to_ulaw, ulaw_to_pcm16
from ari_app.audio.format import SAMPLE_BYTES, TELEPHONE_RATE_HZ
from ari_app.audio.resample import StreamResampler
from ari_app.errors import EngineError, EngineRejected
from ari_app.texts import one_line

STAGE = "realtime"
PCM_RATE_HZ = 24_000
"""The only rate of `audio/pcm`."""
FATAL_CODES = frozenset(
    (
        "account_deactivated",
        "beta_api_shape_disabled",
        "billing_hard_limit_reached",
        "insufficient_quota",
        "invalid_api_key",
        "model_not_found",
    )
)
"""The next connection would meet the same, for ever."""
MAX_SERVER_WORDS = 200
MAX_CODE_CHARS = 60
MAX_DELTA_CHARS = 2**20
"""16 s of speech; the server sends a fraction of a second at a time."""
MAX_NUMBER = 2**53

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RealtimeSettings:
    """One session, and how it is conducted. Defaults are those of `config.py`."""

    model: str
    voice: str
    instructions: str = ""
    audio_format: Literal["pcm", "pcmu"] = "pcm"
    turn_detection: Literal["server_vad", "semantic_vad"] = "server_vad"
    vad_threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 1000
    eagerness: Literal["auto", "low", "medium", "high"] = "auto"
    idle_timeout_ms: int | None = None
    barge_in: Literal["server", "local"] = "server"
    """Who decides that the caller interrupts: the server's detector, or ours, which asks for sustained speech."""
    noise_reduction: Literal["near_field", "far_field"] | None = "near_field"
    transcription_model: str = ""
    transcription_field: Literal["language", "languages"] = "languages"
    """Older models take one language, newer ones a list."""
    languages: tuple[str, ...] = ()
    speed: float = 1.0
    max_output_tokens: int = 1024
    truncation: Literal["auto", "disabled"] | float = "auto"
    """What happens when the context is full; a number is the share that is kept."""
    reasoning_effort: str = ""
    tools: Sequence[Mapping[str, Any]] = field(default=())

    @property
    def wire_format(self) -> dict[str, Any]:
        """The `format` object of both directions."""
        if self.audio_format == "pcmu":
            return {"type": "audio/pcmu"}
        return {"type": "audio/pcm", "rate": PCM_RATE_HZ}


# --- client events -----------------------------------------------------------------------------------


def session_update(settings: RealtimeSettings, event_id: str, *, listens: bool = True) -> Event:
    """The `session.update` of a conversation, or with `listens` off of a mere voice."""
    session: dict[str, Any] = {
        "type": "realtime",
        "model": settings.model,
        "output_modalities": ["audio"],
        "instructions": settings.instructions,
        "audio": {
            "input": {
                "format": settings.wire_format,
                "noise_reduction": {"type": settings.noise_reduction} if settings.noise_reduction else None,
                "turn_detection": _turn_detection(settings) if listens else None,
                **_transcription(settings),
            },
            "output": {"format": settings.wire_format, "voice": settings.voice, "speed": settings.speed},
        },
        "tools": list(settings.tools),
        "tool_choice": "auto",
        "max_output_tokens": settings.max_output_tokens,
        "truncation": settings.truncation
        if isinstance(settings.truncation, str)
        else {"type": "retention_ratio", "retention_ratio": settings.truncation},
    }
    if settings.reasoning_effort:
        session["reasoning"] = {"effort": settings.reasoning_effort}
    return {"type": "session.update", "event_id": event_id, "session": session}


def _transcription(settings: RealtimeSettings) -> dict[str, Any]:
    if not settings.transcription_model:
        return {}
    hint: dict[str, Any] = {}
    if settings.languages and settings.transcription_field == "languages":
        hint = {"languages": list(settings.languages)}
    elif len(settings.languages) == 1:
        hint = {"language": settings.languages[0]}
    return {"transcription": {"model": settings.transcription_model, **hint}}


def _turn_detection(settings: RealtimeSettings) -> dict[str, Any]:
    server_decides = settings.barge_in == "server"
    common = {"create_response": server_decides, "interrupt_response": server_decides}
    if settings.turn_detection == "semantic_vad":
        return {"type": "semantic_vad", "eagerness": settings.eagerness, **common}
    idle = {"idle_timeout_ms": settings.idle_timeout_ms} if settings.idle_timeout_ms else {}
    return {
        "type": "server_vad",
        "threshold": settings.vad_threshold,
        "prefix_padding_ms": settings.prefix_padding_ms,
        "silence_duration_ms": settings.silence_duration_ms,
        **common,
        **idle,
    }


def say_exactly(text: str) -> dict[str, Any]:
    """The `response` of a `response.create` that speaks a given sentence."""
    return {"instructions": f"Say exactly: {text}"}


def read_aloud(text: str, segment: str) -> dict[str, Any]:
    """An out-of-band response that speaks a given text; `segment` comes back in its metadata."""
    return {
        "conversation": "none",
        "output_modalities": ["audio"],
        "metadata": {"segment": segment},
        "instructions": "Read the user's text aloud word for word. Add nothing, answer nothing.",
        "input": [message("user", text)],
    }


def message(role: Literal["user", "assistant"], text: str) -> dict[str, Any]:
    """A message item of text; a recording of the bot can't be put into a conversation, its words can."""
    kind = "input_text" if role == "user" else "output_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def spoken_message(audio: str) -> dict[str, Any]:
    """A message item of caller audio, base64 in the session's format."""
    return {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": audio}]}


def item_create(item: dict[str, Any]) -> Event:
    return {"type": "conversation.item.create", "item": item}


def item_delete(item_id: str) -> Event:
    return {"type": "conversation.item.delete", "item_id": item_id}


def item_truncate(item_id: str, content_index: int, audio_end_ms: int) -> Event:
    """Cut an item of the bot to what the caller heard of it."""
    return {
        "type": "conversation.item.truncate",
        "item_id": item_id,
        "content_index": content_index,
        "audio_end_ms": audio_end_ms,
    }


def function_output(call_id: str, output: str) -> Event:
    return item_create({"type": "function_call_output", "call_id": call_id, "output": output})


def realtime_url(base_url: str, model: str) -> str:
    """The WebSocket address beside a REST base URL."""
    parts = urlsplit(base_url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    return f"{scheme}://{parts.netloc}{parts.path}/realtime?model={quote(model, safe='')}"


# --- server events -----------------------------------------------------------------------------------


def text_of(event: Mapping[str, Any], name: str) -> str:
    """A text field, "" where the server did not send one."""
    value = event.get(name)
    return value if isinstance(value, str) else ""


def object_of(event: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object field, empty where the server did not send one."""
    value = event.get(name)
    return value if isinstance(value, dict) else {}


def objects_of(event: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of objects, without what is none."""
    value = event.get(name)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def number_of(event: Mapping[str, Any], name: str) -> float:
    """A number field, 0 where the server did not send one that can be one."""
    value = event.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return 0
    return value if abs(value) < MAX_NUMBER else 0  # false for what is not a number, too


def probe() -> Event:
    """Changes nothing, and must be answered: tells a server with nothing to say from one that is gone."""
    return {"type": "session.update", "event_id": "probe", "session": {"type": "realtime"}}


def engine_error(error: Mapping[str, Any]) -> EngineError:
    """The `error` object of an error event or of a failed response, as one of our exceptions."""
    code = one_line(text_of(error, "code"), MAX_CODE_CHARS)
    words = one_line(text_of(error, "message"), MAX_SERVER_WORDS) or "no reason given"
    return EngineRejected(STAGE, f"{code}: {words}" if code else words, permanent=code in FATAL_CODES)


def check_session(session: Mapping[str, Any], settings: RealtimeSettings) -> None:
    """Compare the formats in force with those asked for: a mistake here is noise in the caller's ear.

    Raises:
        EngineRejected: they differ.
    """
    audio = object_of(session, "audio")
    for direction in ("input", "output"):
        actual = text_of(object_of(object_of(audio, direction), "format"), "type")
        if actual != settings.wire_format["type"]:
            raise EngineRejected(
                STAGE,
                f"the server's {direction} audio is {one_line(actual, MAX_CODE_CHARS) or 'of no known format'}, "
                f"not {settings.wire_format['type']}: set OPENAI_RT_AUDIO to what it can do",
                permanent=True,
            )


# --- audio -------------------------------------------------------------------------------------------


class Uplink:
    """Caller audio, PCM16 at 8 kHz in any chunks, to the `audio` of append events."""

    def __init__(self, settings: RealtimeSettings) -> None:
        self._resampler = (
            None if settings.audio_format == "pcmu" else StreamResampler(TELEPHONE_RATE_HZ, PCM_RATE_HZ)
        )

    def push(self, pcm: bytes) -> str:
        wire = self._resampler.push(pcm) if self._resampler else pcm16_to_ulaw(pcm)
        return base64.b64encode(wire).decode("ascii")


class Downlink:
    """The audio deltas of one item to PCM16 at 8 kHz; deltas may break anywhere, also inside a sample."""

    def __init__(self, settings: RealtimeSettings) -> None:
        pcmu = settings.audio_format == "pcmu"
        self._resampler = None if pcmu else StreamResampler(PCM_RATE_HZ, TELEPHONE_RATE_HZ)
        self._bytes_per_ms = TELEPHONE_RATE_HZ / 1000 if pcmu else PCM_RATE_HZ * SAMPLE_BYTES / 1000
        self._received_bytes = 0
        self._half_sample = b""

    @property
    def received_ms(self) -> float:
        """Length of the item's audio so far, as the server counts it."""
        return self._received_bytes / self._bytes_per_ms

    def push(self, delta: str) -> bytes:
        """Take one delta.

        Raises:
            ValueError: it is not base64, or far too long.
        """
        if len(delta) > MAX_DELTA_CHARS:
            raise ValueError(f"a delta of {len(delta)} characters")
        try:
            wire = base64.b64decode(delta, validate=True)
        except (binascii.Error, ValueError):  # the latter where it is not even ASCII
            raise ValueError("the audio is not base64") from None
        self._received_bytes += len(wire)
        if self._resampler is None:
            return ulaw_to_pcm16(wire)
        wire = self._half_sample + wire
        whole = len(wire) // SAMPLE_BYTES * SAMPLE_BYTES
        self._half_sample = wire[whole:]
        return self._resampler.push(wire[:whole])

    def flush(self) -> bytes:
        """The last samples, at the end of the item."""
        return self._resampler.flush() if self._resampler else b""
