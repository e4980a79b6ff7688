"""Stereo alignment of the two directions of a call, and WAV files that stay playable if we are killed."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import numpy as np

from ari_app.audio.format import SAMPLE_BYTES, TELEPHONE_RATE_HZ, ms_to_bytes

MAX_SKEW_BYTES = ms_to_bytes(1000)
"""When one direction falls this far behind (it stopped), it is filled with silence and the other goes on."""


def private_opener(path: str, flags: int) -> int:
    """For `open(..., opener=private_opener)`: callers' words are nobody else's business."""
    return os.open(path, flags, 0o600)


class StereoAligner:
    """Joins caller (left) and bot (right) PCM16 streams, both continuous from the same instant. Core."""

    def __init__(self) -> None:
        self._left = bytearray()
        self._right = bytearray()

    def push_left(self, pcm: bytes) -> None:
        self._left += pcm

    def push_right(self, pcm: bytes) -> None:
        self._right += pcm

    def take(self, *, final: bool = False) -> bytes:
        """Interleaved stereo PCM16 of all that is complete; with `final` the shorter side is padded."""
        slack = 0 if final else MAX_SKEW_BYTES
        for ahead, behind in ((self._left, self._right), (self._right, self._left)):
            missing = len(ahead) - len(behind) - slack
            if missing > 0:
                behind.extend(bytes(missing))
        length = min(len(self._left), len(self._right))
        stereo = np.empty((length // SAMPLE_BYTES, 2), "<i2")
        for column, side in enumerate((self._left, self._right)):
            stereo[:, column] = np.frombuffer(bytes(side[:length]), "<i2")
            del side[:length]
        return stereo.tobytes()


class GrowingWav:
    """A WAV file whose header is true after each `write`, so that a killed process leaves a playable file."""

    def __init__(self, path: Path, *, channels: int, rate_hz: int = TELEPHONE_RATE_HZ) -> None:
        self._file = open(path, "xb", opener=private_opener)
        self._wave = wave.open(self._file, "wb")
        self._wave.setnchannels(channels)
        self._wave.setsampwidth(SAMPLE_BYTES)
        self._wave.setframerate(rate_hz)

    def write(self, pcm: bytes) -> None:
        self._wave.writeframes(pcm)  # patches the header, unlike writeframesraw
        self._file.flush()

    def close(self) -> None:
        self._wave.close()
        self._file.close()


def write_wav(path: Path, pcm: bytes, *, rate_hz: int = TELEPHONE_RATE_HZ) -> None:
    """Write mono PCM16 as one WAV file."""
    sound = GrowingWav(path, channels=1, rate_hz=rate_hz)
    try:
        sound.write(pcm)
    finally:
        sound.close()
