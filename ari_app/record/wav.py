"""Stereo alignment of the two directions of a call, and WAV files that stay playable if we are killed."""

from __future__ import annotations

import struct

import numpy as np

from ari_app.audio.format import FRAME_BYTES, FRAME_MS, SAMPLE_BYTES, TELEPHONE_RATE_HZ, ms_to_bytes
from ari_app.record.files import Output, write_once

MAX_SKEW_BYTES = ms_to_bytes(5000)
"""When one direction falls this far behind, the other goes on beside silence. After a stall of the event loop one is
told first, and the other a moment later: only stalls longer than this cost sound."""
UNKNOWN_BYTES = 0xFFFFFFFF
"""The length in the header of a sealed WAV file, which can't be patched; players read to its end."""
HEADER_BYTES = 44


class _Side:
    """One direction, from the first sample of the recording on."""

    def __init__(self) -> None:
        self.pcm = bytearray()
        self.began = False
        self._owed_bytes = 0
        """Written as silence already, and still to come."""

    def push(self, pcm: bytes) -> None:
        surplus = min(self._owed_bytes, len(pcm))
        self._owed_bytes -= surplus
        self.pcm += pcm[surplus:]

    def pad(self, length_bytes: int) -> None:
        """Silence in the place of sound that has not come; it is too late for it then."""
        self.pcm += bytes(length_bytes)
        self._owed_bytes += length_bytes


class StereoAligner:
    """Joins caller (left) and bot (right) PCM16 streams, each continuous from its first frame on. Core.

    A sample stands at its own place or, when it came too late, is silence: nothing else is moved by it.
    """

    def __init__(self, began_at: float) -> None:
        """`began_at` (s) is when the recording begins."""
        self._left, self._right = _Side(), _Side()
        self._began_at = began_at

    def push_left(self, pcm: bytes, at: float) -> None:
        """More of the caller, its first frame complete at `at` (s); time before the first one is silence."""
        self._push(self._left, pcm, at)

    def push_right(self, pcm: bytes, at: float) -> None:
        """More of the bot, its first frame sent at `at` (s)."""
        self._push(self._right, pcm, at)

    def _push(self, side: _Side, pcm: bytes, at: float) -> None:
        if not side.began:
            side.began = True
            side.pcm += bytes(max(frames_between(self._began_at, at), 0) * FRAME_BYTES)
        side.push(pcm)

    def take(self, *, final: bool = False) -> bytes:
        """Interleaved stereo PCM16 of all that is complete; with `final` the shorter side is padded."""
        slack = 0 if final else MAX_SKEW_BYTES
        for ahead, behind in ((self._left, self._right), (self._right, self._left)):
            missing = len(ahead.pcm) - len(behind.pcm) - slack
            if missing > 0:
                behind.pad(missing)
        length = min(len(self._left.pcm), len(self._right.pcm))
        stereo = np.empty((length // SAMPLE_BYTES, 2), "<i2")
        for column, side in enumerate((self._left, self._right)):
            stereo[:, column] = np.frombuffer(bytes(side.pcm[:length]), "<i2")
            del side.pcm[:length]
        return stereo.tobytes()


def frames_between(begin: float, end: float) -> int:
    """Frames of time (s); below zero when the end is before the begin."""
    return round((end - begin) * 1000 / FRAME_MS)


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
