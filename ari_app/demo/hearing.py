"""What a caller heard, and when: a recording that grows while the call lasts, and the sound in it. Shell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ari_app.audio.format import FRAME_BYTES, FRAME_MS, SAMPLE_BYTES, TELEPHONE_RATE_HZ

WAV_HEADER_BYTES = 44
SOUND_DBFS = -45.0
"""A 20 ms frame above this is sound. Speech is at -20 dBFS, G.711 idle noise below -70 dBFS."""
SHORTEST_SOUND_FRAMES = 3
"""Anything shorter than 60 ms is a click."""
BYTES_PER_S = TELEPHONE_RATE_HZ * SAMPLE_BYTES


@dataclass(frozen=True, slots=True)
class Heard:
    """One stretch of listening. Times are in seconds of the loop clock, or None if there was no sound."""

    pcm: bytes
    """PCM16, 8 kHz: from the beginning of the stretch to its end, silence included."""
    first_sound_at: float | None
    last_sound_at: float | None

    @property
    def sound_s(self) -> float:
        """From the first sound to the last."""
        if self.first_sound_at is None or self.last_sound_at is None:
            return 0.0
        return self.last_sound_at - self.first_sound_at


def sound_span(pcm: bytes) -> tuple[int, int] | None:
    """Where sound begins and ends in PCM16 at 8 kHz, in bytes, to a frame; None if all is quiet."""
    whole = len(pcm) // FRAME_BYTES * FRAME_BYTES
    frames = np.frombuffer(pcm[:whole], dtype="<i2").reshape(-1, FRAME_BYTES // SAMPLE_BYTES)
    power = np.mean(np.square(frames.astype(np.float32) / 32768), axis=1)
    loud = np.concatenate(([False], power > 10 ** (SOUND_DBFS / 10), [False]))
    edges = np.flatnonzero(np.diff(loud.astype(np.int8)))
    runs = [(start, end) for start, end in edges.reshape(-1, 2) if end - start >= SHORTEST_SOUND_FRAMES]
    if not runs:
        return None
    return int(runs[0][0]) * FRAME_BYTES, int(runs[-1][1]) * FRAME_BYTES


class GrowingRecording:
    """Follows a WAV file that another process writes at the pace of the clock, without a gap."""

    def __init__(self, path: Path) -> None:
        self.pcm = bytearray()
        self._path = path
        self._begun_at: float | None = None

    def poll(self, now: float) -> bool:
        """Take what has been written since; True if there was something."""
        try:
            with self._path.open("rb") as file:
                file.seek(WAV_HEADER_BYTES + len(self.pcm))
                fresh = file.read()
        except FileNotFoundError:
            return False
        if not fresh:
            return False
        self.pcm += fresh
        # Everything we see had been written by now, so the file began no later than this. The writer's buffer
        # (4096 bytes, 256 ms) delays what we see; over several polls the smallest value is the true one.
        begun_at = now - len(self.pcm) / BYTES_PER_S
        self._begun_at = begun_at if self._begun_at is None else min(self._begun_at, begun_at)
        return True

    def time_of(self, position_bytes: int) -> float:
        """When the sample at this position was heard, in seconds of the clock given to `poll`."""
        return (self._begun_at or 0.0) + position_bytes / BYTES_PER_S

    def position_at(self, when: float) -> int:
        """The position heard at this time; 0 before the recording began."""
        if self._begun_at is None:
            return 0
        return max(0, round((when - self._begun_at) * 1000 / FRAME_MS)) * FRAME_BYTES

    def heard(self, start_bytes: int) -> Heard:
        """Everything from this position."""
        pcm = bytes(self.pcm[start_bytes:])
        span = sound_span(pcm)
        if span is None:
            return Heard(pcm, None, None)
        return Heard(pcm, self.time_of(start_bytes + span[0]), self.time_of(start_bytes + span[1]))
