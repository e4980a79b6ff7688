"""Sample-rate conversion of a stream: state is kept between chunks, so joins do not click. Core.

Rates with a small ratio (8, 16, 24, 48 kHz) go through a polyphase FIR filter of our own, others (22.05 kHz) through
libsamplerate. The telephone's rates are converted on every call all the time, and 20 ms from 24 to 8 kHz cost 50 µs
in libsamplerate's sinc_medium and 12 µs here (`scripts/bench --only parts`); its stream holds 6 ms back, this one 2.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import samplerate

CONVERTER = "sinc_medium"
"""From 22.05 to 8 kHz it keeps 3.4 kHz whole, where sinc_fastest loses 9 dB."""
FLUSH_S = 0.05
"""Silence that drives the last samples through the filter."""
LARGEST_FACTOR = 6
PASS, STOP = 0.425, 0.575
"""Edges of the filter, as shares of the lower rate: at 8 kHz 3.4 and 4.6 kHz. What lies between them and folds back
lands above 3.4 kHz, where telephony carries nothing."""
ATTENUATION_DB = 80.0

_Samples = np.ndarray[Any, np.dtype[np.float64]]


class _Converter(Protocol):
    def process(self, samples: _Samples) -> _Samples: ...
    def reset(self) -> None: ...


class StreamResampler:
    """PCM16 mono from one rate to another, chunk by chunk. Any chunking gives the same samples."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._from_hz = from_hz
        self._to_hz = to_hz
        self._converter = _converter(from_hz, to_hz)
        self._samples_in = self._samples_out = 0

    def push(self, pcm: bytes) -> bytes:
        """Convert one chunk of whole samples; the last milliseconds of it come out with the next."""
        if self._converter is None or not pcm:
            return pcm
        samples = np.frombuffer(pcm, "<i2").astype(np.float64)
        converted = self._converter.process(samples)
        self._samples_in += len(samples)
        self._samples_out += len(converted)
        out: bytes = np.clip(np.rint(converted), -32768, 32767).astype("<i2").tobytes()
        return out

    def flush(self) -> bytes:
        """What is still inside at the end of the stream; afterwards a new stream can begin."""
        if self._converter is None:
            return b""
        expected = -(-self._samples_in * self._to_hz // self._from_hz)
        missing = expected - self._samples_out
        # libsamplerate's own end-of-input gives at most as much as it is fed in that call, which is nothing.
        tail = self.push(bytes(2 * int(FLUSH_S * self._from_hz)))[: 2 * missing]
        self._converter.reset()
        self._samples_in = self._samples_out = 0
        return tail


def resample(pcm: bytes, from_hz: int, to_hz: int) -> bytes:
    """Convert a whole recording."""
    resampler = StreamResampler(from_hz, to_hz)
    return resampler.push(pcm) + resampler.flush()


def _converter(from_hz: int, to_hz: int) -> _Converter | None:
    divisor = math.gcd(from_hz, to_hz)
    up, down = to_hz // divisor, from_hz // divisor
    if up == down:
        return None
    if max(up, down) <= LARGEST_FACTOR:
        return _Polyphase(up, down)
    return _Libsamplerate(to_hz / from_hz)


class _Polyphase:
    """`up` samples for every `down`: output n is the filter's phase n·down mod `up` over the input before it.

    Each phase is one convolution (Crochiere and Rabiner, "Multirate Digital Signal Processing", section 3.3).
    """

    def __init__(self, up: int, down: int) -> None:
        self._up, self._down = up, down
        taps = _low_pass(up, down)
        self._phases = [taps[phase::up] for phase in range(up)]
        self._length = len(self._phases[0])
        self._lead = (len(taps) - 1) // 2 // up
        """Input samples that the filter looks ahead: so many come out only with the next chunk."""
        self.reset()

    def reset(self) -> None:
        self._kept = np.zeros(self._length - 1 - self._lead)
        """Input that outputs to come still need."""
        self._skip = 0
        """Outputs to leave out before the next one that counts, at the raised rate."""

    def process(self, samples: _Samples) -> _Samples:
        there = np.concatenate((self._kept, samples))
        count = len(there) - self._length + 1
        if count <= 0:
            self._kept = there
            return np.zeros(0)
        self._kept = there[count:]
        if self._up == 1:
            raised = np.convolve(there, self._phases[0], "valid")
        else:
            raised = np.empty(count * self._up)
            for phase, taps in enumerate(self._phases):
                raised[phase :: self._up] = np.convolve(there, taps, "valid")
        out = raised[self._skip :: self._down]
        self._skip = self._skip + len(out) * self._down - len(raised)
        return out


class _Libsamplerate:
    """Any other ratio."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._resampler = samplerate.Resampler(CONVERTER, channels=1)

    def reset(self) -> None:
        self._resampler.reset()

    def process(self, samples: _Samples) -> _Samples:
        converted = self._resampler.process((samples / 32768).astype(np.float32), self._ratio)
        return np.asarray(converted, np.float64) * 32768


def _low_pass(up: int, down: int) -> _Samples:
    """Windowed sinc of odd length at the raised rate, padded to whole phases (Kaiser's formulas).

    The middle tap is at a multiple of `up`, so that input and output samples coincide.
    """
    low = 1 / max(up, down)  # the lower rate, as a share of the raised one
    width = (STOP - PASS) * low
    half = math.ceil((ATTENUATION_DB - 7.95) / (2.285 * 2 * math.pi * width) / 2 / up) * up
    n = np.arange(-half, half + 1)
    beta = 0.1102 * (ATTENUATION_DB - 8.7)
    cutoff = (PASS + STOP) / 2 * low
    taps = 2 * cutoff * np.sinc(2 * cutoff * n) * np.kaiser(2 * half + 1, beta)
    taps *= up / taps.sum()
    return np.concatenate((taps, np.zeros(up - 1)))
