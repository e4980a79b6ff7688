"""The input audio buffer of a Realtime session: the caller's audio clock, turn detection and commits. Core.

Time is that of the audio appended: a burst counts as what it is, and a pause of the client as nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ari_app.audio.format import FRAME_BYTES, FRAME_MS, bytes_to_ms, ms_to_bytes
from ari_app.audio.vad import EnergyVad, VadState
from ari_app.dialog.turns import TurnEnded, TurnSettings, TurnStarted, TurnTracker

LONGEST_BUFFER_MS = 120_000
"""Of audio nobody committed; the oldest goes."""
SHORTEST_COMMIT_MS = 100
HELD_BACK_MS = FRAME_MS
"""What was appended and is not in the buffer yet: the begun frame, and some ms inside the resampler."""
SILENCE_OF_EAGERNESS_MS = {"low": 2000, "medium": 1000, "auto": 1000, "high": 500}
PREFIX_PADDING_MS = 300
"""Where the client can't choose it."""
MIDDLE_DBFS = -40.0
"""Of threshold 0.5; the packaged detector's default."""
THRESHOLD_RANGE_DB = 40.0
"""Threshold 0 is 20 dB more sensitive, 1 as much less."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller speaks."""

    audio_start_ms: int
    """With the prefix padding."""


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The caller's turn is complete."""

    audio_end_ms: int
    """With the silence that ended it."""
    turn: Turn


@dataclass(frozen=True, slots=True)
class Turn:
    """Audio that becomes an item."""

    pcm: bytes = field(repr=False)
    """PCM16 at 8 kHz."""
    speech_ms: float
    span_ms: float
    """From the first voiced frame to the last."""


class InputBuffer:
    """Takes PCM16 at 8 kHz."""

    def __init__(self, turn_detection: dict[str, Any] | None) -> None:
        self._wanted = self._used = turn_detection
        self._tracker = _tracker(turn_detection)
        self._vad = _vad(turn_detection)
        self._frame = bytearray()
        self._uncommitted = bytearray()
        self._clock_frames = 0

    @property
    def clock_ms(self) -> int:
        """All audio ever appended, in whole frames."""
        return self._clock_frames * FRAME_MS

    @property
    def speaking(self) -> bool:
        """A turn has begun and not ended."""
        return self._tracker is not None and self._tracker.speaking

    def detect(self, turn_detection: dict[str, Any] | None) -> None:
        """Change turn detection: off at once, other changes when the caller does not speak."""
        self._wanted = turn_detection
        if turn_detection is None or not self.speaking:
            self._use_wanted()

    def push(self, pcm: bytes) -> list[SpeechStarted | SpeechStopped]:
        """Append audio of any length; returns what it brought about."""
        self._frame += pcm
        happened = []
        whole = len(self._frame) // FRAME_BYTES * FRAME_BYTES
        data = bytes(self._frame[:whole])
        del self._frame[:whole]
        for start in range(0, whole, FRAME_BYTES):
            event = self._push_frame(data[start : start + FRAME_BYTES])
            if event:
                happened.append(event)
        surplus = len(self._uncommitted) - ms_to_bytes(LONGEST_BUFFER_MS)
        if surplus > 0:
            del self._uncommitted[:surplus]
        return happened

    def commit(self) -> Turn | None:
        """Take all audio since the last commit as a turn; None when it is too short.

        Whoever commits by hand knows that it is speech, so all of it counts as that.
        """
        pcm = bytes(self._uncommitted)
        length_ms = bytes_to_ms(len(pcm))
        if length_ms < SHORTEST_COMMIT_MS - HELD_BACK_MS:
            return None
        self.clear()
        return Turn(pcm, length_ms, length_ms)

    @property
    def uncommitted_ms(self) -> float:
        """What `commit` would take."""
        return bytes_to_ms(len(self._uncommitted))

    def clear(self) -> None:
        """Forget the audio; the clock goes on."""
        self._uncommitted.clear()
        self._use_wanted()
        self._tracker = _tracker(self._used)

    def _push_frame(self, frame: bytes) -> SpeechStarted | SpeechStopped | None:
        self._clock_frames += 1
        self._uncommitted += frame
        if self._tracker is None:
            return None
        now_ms = self._clock_frames * FRAME_MS
        voiced = self._vad.push(frame, now_ms / 1000) in (VadState.STARTING, VadState.SPEAKING)
        event = self._tracker.push(frame, voiced, now_ms / 1000)
        if isinstance(event, TurnStarted):
            onset_ms = round(event.onset_at * 1000) - FRAME_MS
            return SpeechStarted(max(0, onset_ms - _prefix_padding_ms(self._used)))
        if isinstance(event, TurnEnded):
            self._uncommitted.clear()
            if self._wanted != self._used:
                self._use_wanted()
            span_ms = (event.speech_end_at - event.onset_at) * 1000 + FRAME_MS
            return SpeechStopped(now_ms, Turn(event.pcm, event.speech_ms, span_ms))
        return None

    def _use_wanted(self) -> None:
        if self._wanted != self._used:
            self._used = self._wanted
            self._tracker = _tracker(self._used)
            self._vad = _vad(self._used)


def _prefix_padding_ms(turn_detection: dict[str, Any] | None) -> int:
    padding: int = (turn_detection or {}).get("prefix_padding_ms", PREFIX_PADDING_MS)
    return padding


def _tracker(turn_detection: dict[str, Any] | None) -> TurnTracker | None:
    if turn_detection is None:
        return None
    silence_ms = turn_detection.get("silence_duration_ms")
    if silence_ms is None:
        silence_ms = SILENCE_OF_EAGERNESS_MS[turn_detection["eagerness"]]
    return TurnTracker(
        TurnSettings(silence_duration_ms=silence_ms, pre_roll_ms=_prefix_padding_ms(turn_detection))
    )


def _vad(turn_detection: dict[str, Any] | None) -> EnergyVad:
    threshold = (turn_detection or {}).get("threshold", 0.5)
    return EnergyVad(threshold_dbfs=MIDDLE_DBFS + THRESHOLD_RANGE_DB * (threshold - 0.5))
