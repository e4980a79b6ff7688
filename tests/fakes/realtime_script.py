"""What a test tells the fake Realtime server: answers of the model, misbehaviour; and what it reads: the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Event = dict[str, Any]

MS_PER_CHARACTER = 60


@dataclass(frozen=True)
class FunctionCall:
    """A call the model makes; `arguments` is the JSON text, which a model may get wrong."""

    name: str
    arguments: str = "{}"
    call_id: str = ""
    """Empty: one is given."""


@dataclass(frozen=True)
class Message:
    """A further message item of the same response."""

    text: str
    audio_ms: int = 0


@dataclass(frozen=True)
class Answer:
    """What the model says in one response."""

    text: str = ""
    """The transcript of the audio, or the text of a text response; empty: no message item."""
    audio_ms: int = 0
    """0: 60 ms per character."""
    items: Sequence[Message] = ()
    function_calls: Sequence[FunctionCall] = ()
    status: Literal["completed", "incomplete", "failed"] = "completed"
    reason: Literal["max_output_tokens", "content_filter"] = "max_output_tokens"
    """Of an incomplete response."""
    error_code: str = "server_error"
    """Of a failed response."""
    error_message: str = "The server had an error while processing your request."
    stop_after_ms: int | None = None
    """An incomplete or failed response ends when it has sent so much audio; None: at the end of all."""
    speed: float = 5.0
    """Times real time at which deltas are sent."""
    first_delay_s: float = 0.0
    """Between response.created and the first item."""
    delta_ms: int | Sequence[int] = 100
    """Sizes of the audio deltas, taken in turn again and again."""
    delta_bytes: int | Sequence[int] = ()
    """The same in bytes, which may be odd, so that a delta ends inside a sample; goes before `delta_ms`."""
    hang: bool = False
    """response.created and then nothing, until it is cancelled."""
    usage: Event | None = None
    """The usage object of response.done; None: a plausible one."""

    @property
    def messages(self) -> list[Message]:
        first = [Message(self.text, self.audio_ms)] if self.text or self.audio_ms else []
        return [*first, *self.items]


TEN_SECONDS_AT_ONCE = Answer("This is a burst of speech, ten seconds of it.", audio_ms=10_000, speed=50.0)
"""Sent within 200 ms."""


@dataclass(frozen=True)
class Fault:
    """How one connection misbehaves; the handshake's and the configuration's, then one deed at one moment.

    The deed is done before session.created when no moment is given.
    """

    # The handshake
    status: int = 0
    """Refused with this HTTP status."""
    body: str = '{"error":{"message":"no","type":"invalid_request_error","code":null,"param":null}}'
    no_handshake: bool = False
    """TCP is accepted, nothing is answered."""

    # The configuration
    update_delay_s: float = 0.0
    """Before session.updated."""
    never_updated: bool = False
    input_format: str = ""
    """In force whatever was asked for, such as "audio/pcm"."""
    output_format: str = ""
    clock_ahead_s: float = 0.0
    """The client's clock is wrong by so much: expires_at is too early."""
    expires_s: float | None = None
    """After this time: error session_expired, close 1001."""

    # The deed
    close_code: int = 0
    close_reason: str = ""
    reset: bool = False
    """The TCP connection is reset."""
    error_code: str = ""
    """An error event that no client event caused."""
    error_message: str = "Something is wrong."
    silent: bool = False
    """Everything is accepted, pings are answered, no event is sent any more."""
    half_open: bool = False
    """Nothing is read or sent any more, not even a pong."""
    garbage: bool = False
    """Frames that are no events, events without their fields (`GARBAGE`)."""
    unknown_event: bool = False
    race: bool = False
    """The next response.create meets a response that the turn detection has made just before."""

    # Its moment
    after_events: int | None = None
    """When so many events have been sent to the client."""
    after_audio_ms: float | None = None
    """When so much audio of answers has been sent: in mid-sentence."""
    after_s: float | None = None
    """When the connection is so old."""


GARBAGE: tuple[str | bytes, ...] = (
    "{this is not JSON",
    b"\x00\x01\x02",
    "[1, 2, 3]",
    '"text"',
    "null",
    '{"event_id": "event_without_type"}',
    '{"type": 7}',
    '{"type": "response.output_audio.delta", "delta": "!!! no base64 !!!"}',
    '{"type": "response.output_audio.delta", "response_id": null, "item_id": 4, "delta": 5}',
    '{"type": "response.created"}',
    '{"type": "response.done", "response": null}',
    '{"type": "response.output_item.done", "item": []}',
    '{"type": "conversation.item.input_audio_transcription.completed"}',
    '{"type": "session.updated", "session": "?"}',
    '{"type": "error", "error": {"message": "' + "x" * 4_000_000 + '"}}',
    "[" * 100_000,
    '{"type": "error"}',
    '{"type": "rate_limits.updated", "rate_limits": null}',
)


@dataclass(frozen=True)
class Entry:
    """One event on the wire; audio payloads are replaced by their length in ms."""

    at: float
    """The event loop's time."""
    connection: int
    """From 0."""
    direction: Literal["in", "out"]
    """Seen from the server: "in" comes from the client."""
    event: Event

    @property
    def kind(self) -> str:
        return str(self.event.get("type"))


@dataclass
class Item:
    """An item of the conversation and what became of its audio."""

    data: Event
    audio_ms: float = 0.0
    """Sent so far."""
    audio_end_ms: int | None = None
    """Where the client cut it."""
    deleted: bool = False
    previous_id: str | None = None

    @property
    def id(self) -> str:
        return str(self.data["id"])


def usage_of(answer: Answer, audio_ms: float, given: Mapping[str, Any] | None) -> Event:
    """The usage of a response: the answer's own, or 20 audio tokens a second and a token per word."""
    if given is not None:
        return dict(given)
    text = sum(len(message.text.split()) for message in answer.messages)
    audio = int(audio_ms / 50)
    return {
        "total_tokens": 60 + text + audio,
        "input_tokens": 60,
        "output_tokens": text + audio,
        "input_token_details": {
            "text_tokens": 40,
            "audio_tokens": 20,
            "image_tokens": 0,
            "cached_tokens": 0,
            "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
        },
        "output_token_details": {"text_tokens": text, "audio_tokens": audio},
    }
