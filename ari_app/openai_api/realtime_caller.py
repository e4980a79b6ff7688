"""The caller's side of a Realtime conversation: what our own detector hears, and the turns the server makes. Core."""

from __future__ import annotations

from dataclasses import dataclass, field

from ari_app.audio.echo import SpeechDetector
from ari_app.audio.format import SAMPLE_BYTES, TELEPHONE_RATE_HZ, bytes_to_ms, ms_to_bytes
from ari_app.audio.vad import Vad
from ari_app.dialog.ports import TurnTimed
from ari_app.dialog.turns import TurnEnded, TurnEvent, TurnSettings, TurnTracker
from ari_app.openai_api.realtime_protocol import Event, number_of, text_of

KEPT_MS = 5000
"""Audio kept from before a turn: the server tells of its beginning later, and with its own padding."""
MAX_TURN_MS = 30_000
MIN_TURN_MS = 300
"""Speech of a turn that only our own detector heard; less may be a cough."""
MAX_UNANSWERED = 3
RECENT_S = 20.0
"""A turn that nobody answered for longer is not brought up again."""
KEPT_TURNS = 4
"""Turns whose audio is kept: for the record when their words come, and for the next session."""
REMEMBERED_TURNS = 64


class CallerAudio:
    """What was appended in this session: maps the server's milliseconds to our clock and to samples."""

    def __init__(self) -> None:
        self._pcm = bytearray()
        self._start_bytes = 0
        self._pushed_at = 0.0
        self.in_turn = False
        """Keep the audio of a long turn."""

    @property
    def position_ms(self) -> float:
        """All audio appended so far."""
        return bytes_to_ms(self._start_bytes + len(self._pcm))

    def push(self, pcm: bytes, now: float) -> None:
        self._pcm += pcm
        self._pushed_at = now
        surplus = len(self._pcm) - ms_to_bytes(MAX_TURN_MS if self.in_turn else KEPT_MS)
        if surplus > 0:
            del self._pcm[:surplus]
            self._start_bytes += surplus

    def time_at(self, position_ms: float) -> float:
        """When the audio at a position arrived."""
        return self._pushed_at - max(0.0, self.position_ms - position_ms) / 1000

    def cut(self, start_ms: float, end_ms: float) -> bytes:
        """The samples between two positions, as far as they are kept."""
        start, end = (max(0, self._offset(ms)) for ms in (start_ms, end_ms))
        return bytes(self._pcm[start:end])

    def _offset(self, position_ms: float) -> int:
        return int(position_ms * TELEPHONE_RATE_HZ / 1000) * SAMPLE_BYTES - self._start_bytes


@dataclass(slots=True, eq=False)
class CallerTurn:
    """One turn of the caller, named by the server's item."""

    number: int
    item_id: str
    started_at: float = 0.0
    """When the server told of it."""
    start_ms: float = 0.0
    onset_at: float | None = None
    """When it began to be spoken."""
    pcm: bytes = field(default=b"", repr=False)
    speech_end_at: float = 0.0
    endpoint_at: float = 0.0
    understood: bool = False
    """Its words are in the history."""
    handed_on: bool = False
    """A later session got its audio as an item; such audio is hardly ever transcribed."""
    _stages: dict[str, float] = field(default_factory=dict)
    _timed: bool = False

    def reached(self, stage: str, at: float) -> None:
        """Note the first time of a stage, a field of `TurnTimed`."""
        self._stages.setdefault(stage, at)

    def take_timed(self) -> TurnTimed | None:
        """The waterfall, once."""
        if self._timed:
            return None
        self._timed = True
        return TurnTimed(self.number, self.speech_end_at, self.endpoint_at, **self._stages)


class Caller:
    """Follows the caller through all sessions of a call."""

    def __init__(self, vad: Vad, *, silence_duration_ms: int, min_speech_ms: int = 140) -> None:
        self.detector = SpeechDetector(vad)
        self._tracker = TurnTracker(
            TurnSettings(silence_duration_ms=silence_duration_ms, min_speech_ms=min_speech_ms)
        )
        self._voiced_at = self._speaking_at = 0.0
        self._last_ended: TurnEnded | None = None
        self._covered_until = 0.0
        """What the caller said before is in the hands of the server."""
        self._count = 0
        self._turns: dict[str, CallerTurn] = {}
        self._open: CallerTurn | None = None
        """The turn that the server is hearing."""
        self.audio = CallerAudio()
        self.latest: CallerTurn | None = None
        """The last complete turn."""
        self.unanswered: list[CallerTurn] = []
        """Complete turns; no sound of an answer has come."""
        self.ended_at = 0.0
        """End of the last turn that was long enough not to be a cough, by our own detector."""

    @property
    def speaking(self) -> bool:
        """By our own detector, pauses included."""
        return self._tracker.speaking

    @property
    def captured(self) -> bytes:
        """The turn that is being spoken, from its pre-roll on."""
        return self._tracker.captured

    @property
    def heard_by_server(self) -> bool:
        """The server is hearing a turn."""
        return self._open is not None

    @property
    def number(self) -> int:
        """Of the last complete turn; 0 before the first."""
        return self.latest.number if self.latest else 0

    def reached(self, turn: int, stage: str, at: float) -> None:
        """The answer to a turn came so far, if it is the latest."""
        if self.latest and self.latest.number == turn:
            self.latest.reached(stage, at)

    def hear(self, frame: bytes, now: float) -> TurnEvent | None:
        """Our own detector's view of one frame."""
        voiced = self.detector.push(frame, now)
        if voiced:
            self._voiced_at = now
        event = self._tracker.push(frame, voiced, now)
        if self._tracker.speaking:
            self._speaking_at = now
        if isinstance(event, TurnEnded):
            self._last_ended = event
            if event.speech_ms >= MIN_TURN_MS:
                self.ended_at = now
        return event

    # --- the server's turns

    def get(self, event: Event) -> CallerTurn | None:
        """The turn of an event."""
        return self._turns.get(text_of(event, "item_id"))

    def speech_started(self, event: Event, now: float) -> CallerTurn:
        """The server hears a turn."""
        turn = self._open = self._new(text_of(event, "item_id"))
        turn.started_at = now
        turn.start_ms = number_of(event, "audio_start_ms")
        self.audio.in_turn = True
        return turn

    def speech_stopped(self, event: Event, now: float) -> None:
        """The server believes that the turn is over."""
        turn = self.get(event)
        if turn is None:
            return
        turn.endpoint_at = now
        turn.speech_end_at = min(now, self._voiced_at or now)
        turn.pcm = self.audio.cut(turn.start_ms, number_of(event, "audio_end_ms"))
        self.audio.in_turn = False

    def committed(self, turn: CallerTurn, now: float) -> None:
        """The turn is part of the conversation."""
        self._open = None
        self._covered_until = now
        self._tracker.close()

    def confirms(self, turn: CallerTurn) -> bool:
        """True when our own detector heard speech in the turn too."""
        return self._speaking_at >= self.audio.time_at(turn.start_ms)

    def complete(self, turn: CallerTurn) -> None:
        """The turn waits for an answer now."""
        self.latest = turn
        self.unanswered.append(turn)
        del self.unanswered[:-MAX_UNANSWERED]

    # --- without a session

    def keep(self, ended: TurnEnded) -> CallerTurn | None:
        """A turn that no session heard, to be handed to the next; None when it is none or was heard."""
        if ended.speech_ms < MIN_TURN_MS or ended.speech_end_at <= self._covered_until:
            return None
        self._covered_until = ended.speech_end_at
        turn = self._new(f"turn_{self._count + 1}")
        turn.pcm, turn.speech_end_at, turn.endpoint_at = ended.pcm, ended.speech_end_at, ended.at
        turn.onset_at = ended.onset_at
        return turn

    def session_lost(self, heard_at: float, now: float) -> CallerTurn | None:
        """The server's hearing is gone; the turn that the caller had ended and the server had not seen end.

        `heard_at`: when the server last said anything. A connection that stands still breaks much later.
        """
        open_turn, self._open = self._open, None
        ended = self._last_ended
        if ended is None or now - ended.at > RECENT_S:
            return None
        unseen = ended.at >= open_turn.started_at if open_turn else ended.at > heard_at
        return self.keep(ended) if unseen else None

    def _new(self, item_id: str) -> CallerTurn:
        self._count += 1
        turn = self._turns[item_id] = CallerTurn(self._count, item_id)
        for old in list(self._turns.values())[:-KEPT_TURNS]:
            old.pcm = b""
        if len(self._turns) > REMEMBERED_TURNS:
            del self._turns[next(iter(self._turns))]
        return turn
