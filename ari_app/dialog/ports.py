"""The seams of the conversation: what a brain offers, what it needs, and the facts it reports. Core, types only.

`call.py` holds a `Brain` and does not know which one. The brain gets caller audio frame by frame, drives a
`Playout` (implemented by the RTP pacer, which alone knows what the caller heard), and reports facts.

All audio here is PCM16 mono little-endian; on the phone side 8 kHz in 20 ms frames of 320 bytes.
All `now` and `*_at` values are seconds of one monotonic clock (the event loop's).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

# --- engines -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transcript:
    """What the speech-to-text engine understood."""

    text: str
    language: str | None = None
    """ISO 639-1 code where the engine reports one."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the chat history."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class PcmChunk:
    """A piece of synthesised speech: whole PCM16 samples at `rate_hz`."""

    pcm: bytes
    rate_hz: int


class SpeechToText(Protocol):
    """Turns one caller turn into text."""

    async def transcribe(self, pcm: bytes, rate_hz: int) -> Transcript:
        """Transcribe one complete utterance.

        Raises:
            EngineError: the engine failed; nothing else may come out.
        """
        ...


class ChatModel(Protocol):
    """Continues the conversation."""

    def reply(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        """Stream the answer as text deltas of any size; closing the iterator cancels the request.

        Raises:
            EngineError: before or between deltas.
        """
        ...


class TextToSpeech(Protocol):
    """Speaks one piece of text."""

    def speak(self, text: str) -> AsyncIterator[PcmChunk]:
        """Stream the speech of `text`; all chunks of one call share a rate. Closing the iterator cancels.

        Raises:
            EngineError: before or between chunks.
        """
        ...


# --- playout -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ItemStarted:
    """The first frame of an item has left."""

    item_id: str


@dataclass(frozen=True, slots=True)
class ItemFinished:
    """The last frame of a finished item has left: the caller heard all of it."""

    item_id: str
    played_ms: float


PlayoutMark = ItemStarted | ItemFinished


class Playout(Protocol):
    """The caller's ear as the brain sees it. Items are played in the order in which they were first given."""

    def play(self, item_id: str, pcm: bytes) -> None:
        """Queue PCM16 8 kHz audio of any whole number of samples at the end of item `item_id`."""
        ...

    def finish(self, item_id: str) -> None:
        """No more audio comes for the item; its last partial frame is padded with silence."""
        ...

    def clear(self) -> None:
        """Drop everything not yet sent, and end a pause. What was played stays known to `played_ms`."""
        ...

    def pause(self) -> None:
        """Silence from the next frame on, while everything is kept."""
        ...

    def resume(self) -> None:
        """Go on with the sample at which it was paused."""
        ...

    def played_ms(self, item_id: str) -> float:
        """Milliseconds of the item that have left so far (0.0 for an item never started or long forgotten)."""
        ...

    @property
    def speaking(self) -> bool:
        """True while there is audio of some item left to send or the item being played is not finished."""
        ...

    @property
    def starved(self) -> bool:
        """True while the item being played is not finished and has no audio: the caller hears silence."""
        ...


# --- facts a brain reports ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallerSpeechStarted:
    """The caller began to speak (confirmed speech, not a click)."""

    at: float
    onset_at: float
    """When the first speech frame arrived, before confirmation."""


@dataclass(frozen=True, slots=True)
class CallerSaid:
    """A caller turn was understood; `text` is not empty."""

    turn: int
    text: str
    language: str | None
    pcm: bytes = field(repr=False)
    """The turn's audio at 8 kHz, pre-roll included."""
    onset_at: float | None = None
    """When it began to be spoken; None: not known."""
    ended_at: float | None = None
    """When it had been spoken: its words are known later."""


@dataclass(frozen=True, slots=True)
class CallerNotUnderstood:
    """A caller turn gave no usable text (noise, or a transcript that was rejected)."""

    turn: int
    reason: str


@dataclass(frozen=True, slots=True)
class BotSpeechStarted:
    """The first frame of a bot response has left."""

    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class BotSaid:
    """A bot response is over: all played, or interrupted."""

    turn: int
    text: str
    """All text that was generated for it."""
    heard: str
    """The part the caller heard; equals `text` unless interrupted."""
    interrupted: bool
    pcm: bytes = field(repr=False)
    """What was synthesised for it at 8 kHz and sent, cut where playout ended."""
    onset_at: float | None = None
    """When its first frame left; None: not known, or none did."""


@dataclass(frozen=True, slots=True)
class BargeIn:
    """The caller spoke over the bot and playout was cleared."""

    turn: int
    at: float
    onset_at: float


@dataclass(frozen=True, slots=True)
class BargeInDismissed:
    """The caller spoke over the bot and meant nothing by it: the bot waited, and went on with the next sample."""

    turn: int
    at: float
    paused_ms: float
    words: str
    """What was understood; empty: noise."""
    onset_at: float | None = None
    """When the caller began."""


@dataclass(frozen=True, slots=True)
class TurnTimed:
    """The waterfall of one turn, each stage in seconds of the loop clock, None where it was not reached."""

    turn: int
    speech_end_at: float
    endpoint_at: float
    transcript_at: float | None = None
    first_token_at: float | None = None
    first_sentence_at: float | None = None
    first_tts_byte_at: float | None = None
    first_frame_at: float | None = None


@dataclass(frozen=True, slots=True)
class Speculated:
    """An answer was begun in a pause of the caller, before the turn was known to be over."""

    turn: int
    won: bool
    """The caller said no more: it became the answer. Else it was thrown away, and nobody heard of it."""
    requests: int
    """To speech-to-text, chat and text-to-speech together, up to that moment."""


@dataclass(frozen=True, slots=True)
class EngineUsed:
    """What one request to an engine took, thrown away or not."""

    turn: int
    stage: str
    model: str
    amounts: dict[str, int]
    """Tokens by kind (text_in, text_in_cached, audio_in, audio_in_cached, text_out, audio_out), audio_ms of sound,
    characters to be spoken; or `uncounted`: nobody told what it took."""
    cost_usd: float | None
    """At the prices of `models.py` and PRICES_FILE; None where a price or an amount is not known."""
    call_cost_usd: float | None
    """The call so far, as far as it is known; None: nothing of it is."""
    call_cost_is_partial: bool = False
    """Something has no known cost: the call cost more."""


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """An engine stage failed in this turn; the caller heard the local sentence instead."""

    turn: int
    stage: str
    message: str
    permanent: bool
    kind: str = "failed"
    """As in `EngineError`."""


@dataclass(frozen=True, slots=True)
class GaveUp:
    """The brain can't go on (engines failed repeatedly); the call should be ended by its failure policy."""

    reason: str


@dataclass(frozen=True, slots=True)
class Concluded:
    """The conversation is over on our side: the caller heard so, and the call should be hung up."""

    reason: str


Fact = (
    CallerSpeechStarted
    | CallerSaid
    | CallerNotUnderstood
    | BotSpeechStarted
    | BotSaid
    | BargeIn
    | BargeInDismissed
    | TurnTimed
    | Speculated
    | EngineUsed
    | EngineFailed
    | GaveUp
    | Concluded
)


class Brain(Protocol):
    """One side of the conversation. `push_*` never block and never raise on what the caller does."""

    def prepare(self) -> None:
        """The call is being set up: open connections now. Returns at once; there may be no call after all."""
        ...

    async def start(self, playout: Playout, report: Callable[[Fact], None]) -> None:
        """Begin; speaks the greeting if there is one. Turn 0 is the greeting, caller turns count from 1."""
        ...

    def push_audio(self, frame: bytes, now: float) -> None:
        """One 20 ms frame of caller audio (320 bytes), silence included, continuous for the whole call."""
        ...

    def push_sent(self, frame: bytes) -> None:
        """One 20 ms frame as it left for the caller, silence included: what an echo on the line is known by."""
        ...

    def push_mark(self, mark: PlayoutMark, now: float) -> None:
        """Something happened in playout."""
        ...

    def note_said(self, text: str) -> None:
        """Somebody else says this to the caller in the bot's name: to be remembered as its own words."""
        ...

    async def close(self) -> None:
        """End all work at once; idempotent; afterwards no task or connection of this call is left."""
        ...
