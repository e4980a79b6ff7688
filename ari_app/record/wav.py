"""Stereo alignment of the two directions of a call, and WAV files that stay playable if we are killed."""

from __future__ import annotations

import struct

import numpy as np

from ari_app.audio.format import FRAME_BYTES, FRAME_MS, SAMPLE_BYTES, TELEPHONE_RATE_HZ, ms_to_bytes
from ari_app.record.files import Output, write_once

MAX_SKEW_BYTES = ms_to_bytes(1000)
"""When one direction falls this far behind (it stopped), it is filled with silence and the other goes on."""
UNKNOWN_BYTES = 0xFFFFFFFF
"""The length in the header of a sealed WAV file, which can't be patched; players read to its end."""
HEADER_BYTES = 44


class StereoAligner:
    """Joins caller (left) and bot (right) PCM16 streams, each continuous from its first frame on. Core."""

    def __init__(self, began_at: float) -> None:
        """`began_at` (s) is when the recording begins."""
        self._left = bytearray()
        self._right = bytearray()
        self._began_at = began_at
        self._has_left = self._has_right = False

    def push_left(self, frame: bytes, at: float) -> None:
        """One frame of the caller, complete at `at` (s); time before the first one is silence."""
        if not self._has_left:
            if self._frames_until(at) < 0:
                return
            self._has_left = True
            self._left += self._silence_until(at)
        self._left += frame

    def push_right(self, frame: bytes, at: float) -> None:
        """One frame of the bot, sent at `at` (s)."""
        if not self._has_right:
            self._has_right = True
            self._right += self._silence_until(at)
        self._right += frame

    @property
    def ready_bytes(self) -> int:
        """How much of each side `take` would give."""
        shorter, longer = sorted((len(self._left), len(self._right)))
        return max(shorter, longer - MAX_SKEW_BYTES)

    def _silence_until(self, at: float) -> bytes:
        return bytes(max(self._frames_until(at), 0) * FRAME_BYTES)

    def _frames_until(self, at: float) -> int:
        return round((at - self._began_at) * 1000 / FRAME_MS)

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
    """A PCM16 WAV file whose header is true after each `write`, so that a killed process leaves a playable file."""

    def __init__(self, output: Output, *, channels: int, rate_hz: int = TELEPHONE_RATE_HZ) -> None:
        self._output = output
        self._channels = channels
        self._rate_hz = rate_hz
        self._length_bytes = 0
        output.append(header(UNKNOWN_BYTES - HEADER_BYTES, channels, rate_hz))
        output.patch(0, header(0, channels, rate_hz))

    def write(self, pcm: bytes) -> None:
        """Append interleaved samples."""
        self._output.append(pcm)
        self._length_bytes += len(pcm)
        self._output.patch(0, header(self._length_bytes, self._channels, self._rate_hz))

    def close(self) -> None:
        self._output.patch(0, header(self._length_bytes, self._channels, self._rate_hz))
        self._output.close()


def header(data_bytes: int, channels: int, rate_hz: int) -> bytes:
    """The header of a PCM16 WAV file (RIFF WAVE, format 1) with `data_bytes` of samples."""
    block_bytes = channels * SAMPLE_BYTES
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", data_bytes + HEADER_BYTES - 8, b"WAVE"),
        *(b"fmt ", 16, 1, channels, rate_hz, rate_hz * block_bytes, block_bytes, 8 * SAMPLE_BYTES),
        *(b"data", data_bytes),
    )


def write_wav(output: Output, pcm: bytes, *, rate_hz: int = TELEPHONE_RATE_HZ) -> None:
    """Write mono PCM16 as one WAV file, and close it."""
    write_once(output, header(len(pcm), 1, rate_hz) + pcm)
