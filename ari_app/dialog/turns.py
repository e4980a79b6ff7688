"""Caller frames to caller turns: when one begins, when it ends, and all of its audio. Core.

Time inside a turn is counted in frames (the audio clock): a burst after a stalled loop counts as what it is.

    state     voiced frame                          silent frame
    QUIET     -> ONSET, capture from the pre-roll   keep it in the pre-roll
    ONSET     enough speech -> SPEAKING, Started    silent too long -> QUIET, it was a click
    SPEAKING  goes on                               -> TRAILING
    TRAILING  -> SPEAKING, Resumed if it paused     short silence -> Paused; long enough -> QUIET, Ended
    any turn that reaches its longest length        -> QUIET, Ended (forced)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto

from ari_app.audio.format import FRAME_MS, ms_to_bytes


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """Durations of turn-taking, in ms of audio."""

    silence_duration_ms: int = 1000
    """Silence that ends a turn."""
    pause_ms: int = 0
    """Silence after which the turn may be over (`TurnPaused`); 0, or as long as the other: never said."""
    min_speech_ms: int = 140
    """Voiced time that makes a turn. Pauses in "Stop, please" or "Excuse me" don't count, so the wait for it is
    often longer: with 200 ms a barge-in could take half a second to be believed."""
    max_onset_gap_ms: int = 200
    """Longest silence inside the first `min_speech_ms`: longer than a plosive, shorter than two coughs."""
    pre_roll_ms: int = 300
    """Audio kept from before the first voiced frame: soft consonants lie under any threshold."""
    kept_tail_ms: int = 300
    """Silence left at the end of a turn's audio; more of it makes speech-to-text hallucinate."""
    max_turn_ms: int = 30_000
    """A longer turn is ended by force: the window of Whisper, and a bound on memory."""


class TurnState(Enum):
    """Where the caller's speech stands."""

    QUIET = auto()
    ONSET = auto()
    SPEAKING = auto()
    TRAILING = auto()


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """Confirmed speech. While the bot plays, this is a barge-in."""

    at: float
    onset_at: float
    """When the first voiced frame arrived."""


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """One caller turn, complete."""

    pcm: bytes = field(repr=False)
    """8 kHz, from the pre-roll to `kept_tail_ms` after the last voiced frame."""
    speech_ms: float
    """Voiced time, gaps inside words included."""
    onset_at: float
    speech_end_at: float
    """When the last voiced frame arrived."""
    at: float
    forced: bool
    """Ended by its length, not by silence: the caller is still speaking."""


@dataclass(frozen=True, slots=True)
class TurnPaused:
    """The turn would be this, if the caller said no more. `TurnResumed` or `TurnEnded` follows."""

    turn: TurnEnded


@dataclass(frozen=True, slots=True)
class TurnResumed:
    """The caller went on after a `TurnPaused`."""

    at: float


TurnEvent = TurnStarted | TurnPaused | TurnResumed | TurnEnded


class TurnTracker:
    """Follows the caller's speech through one call."""

    def __init__(self, settings: TurnSettings) -> None:
        self._settings = settings
        self._state = TurnState.QUIET
        self._pre_roll: deque[bytes] = deque(maxlen=settings.pre_roll_ms // FRAME_MS)
        self._captured = bytearray()
        self._speech_ms = 0
        self._silence_ms = 0
        self._turn_ms = 0
        self._onset_at = 0.0
        self._speech_end_at = 0.0
        self._paused = False
        self._wanted_ms = settings.silence_duration_ms
        """Silence that ends the present turn."""

    @property
    def state(self) -> TurnState:
        return self._state

    @property
    def speaking(self) -> bool:
        """True from confirmed speech to the end of the turn."""
        return self._state in (TurnState.SPEAKING, TurnState.TRAILING)

    @property
    def speech_ms(self) -> int:
        """Voiced time of the turn so far."""
        return self._speech_ms if self.speaking else 0

    @property
    def captured(self) -> bytes:
        """The turn so far, from its pre-roll on; empty when there is none."""
        return bytes(self._captured)

    def close(self) -> None:
        """Somebody else decided that the turn is over; what the caller says from now on is another."""
        if self._state is TurnState.TRAILING:
            self._forget()

    def shorten(self, silence_ms: int) -> None:
        """The turn seems complete: so much silence ends it, if the caller does not go on; 0: as much as ever."""
        self._wanted_ms = min(silence_ms or self._wanted_ms, self._wanted_ms)

    def push(self, frame: bytes, voiced: bool, now: float) -> TurnEvent | None:
        """Take one 20 ms frame; at most one thing happens per frame."""
        if self._state is TurnState.QUIET:
            if voiced:
                self._begin(now)
            else:
                self._pre_roll.append(frame)
                return None
        self._captured += frame
        self._turn_ms += FRAME_MS
        if voiced:
            return self._push_voiced(now)
        return self._push_silent(now)

    def _begin(self, now: float) -> None:
        self._state = TurnState.ONSET
        self._captured = bytearray(b"".join(self._pre_roll))
        self._pre_roll.clear()
        self._speech_ms = self._silence_ms = self._turn_ms = 0
        self._paused = False
        self._onset_at = self._speech_end_at = now

    def _push_voiced(self, now: float) -> TurnEvent | None:
        if self._silence_ms <= self._settings.max_onset_gap_ms and self.speaking:
            self._speech_ms += self._silence_ms  # the gap was part of a word
        self._speech_ms += FRAME_MS
        self._silence_ms = 0
        self._speech_end_at = now
        self._wanted_ms = self._settings.silence_duration_ms
        if self._turn_ms >= self._settings.max_turn_ms:
            return self._end(now, forced=True)
        if self._paused:
            self._paused = False
            self._state = TurnState.SPEAKING
            return TurnResumed(now)
        if self._state is TurnState.ONSET and self._speech_ms < self._settings.min_speech_ms:
            return None
        confirmed = self._state is TurnState.ONSET
        self._state = TurnState.SPEAKING
        return TurnStarted(now, self._onset_at) if confirmed else None

    def _push_silent(self, now: float) -> TurnEvent | None:
        self._silence_ms += FRAME_MS
        if self._state is TurnState.ONSET:
            if self._silence_ms > self._settings.max_onset_gap_ms:
                self._forget()
            return None
        self._state = TurnState.TRAILING
        if self._silence_ms >= self._wanted_ms:
            return self._end(now, forced=False)
        if self._turn_ms >= self._settings.max_turn_ms:
            return self._end(now, forced=True)
        if not self._paused and 0 < self._settings.pause_ms <= self._silence_ms:
            self._paused = True
            return TurnPaused(self._turn(now, forced=False))
        return None

    def _end(self, now: float, *, forced: bool) -> TurnEnded:
        ended = self._turn(now, forced=forced)
        self._forget(silence_only=not forced)
        return ended

    def _turn(self, now: float, *, forced: bool) -> TurnEnded:
        surplus_ms = max(0, self._silence_ms - self._settings.kept_tail_ms)
        end = len(self._captured) - ms_to_bytes(surplus_ms)
        return TurnEnded(
            bytes(self._captured[:end]), self._speech_ms, self._onset_at, self._speech_end_at, now, forced
        )

    def _forget(self, *, silence_only: bool = True) -> None:
        """Back to QUIET; the end of what was captured is the pre-roll of what comes next.

        After a forced end it already belongs to a turn, and would be understood twice.
        """
        if silence_only:
            kept = ms_to_bytes(self._settings.pre_roll_ms)
            tail = bytes(self._captured[-kept:]) if kept else b""
            step = ms_to_bytes(FRAME_MS)
            self._pre_roll.extend(tail[i : i + step] for i in range(0, len(tail), step))
        self._captured = bytearray()
        self._state = TurnState.QUIET
