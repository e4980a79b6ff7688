"""Sample-rate conversion of a stream: state is kept between chunks, so joins do not click. Core over libsamplerate."""

from __future__ import annotations

import numpy as np
import samplerate

CONVERTER = "sinc_fastest"
"""97 dB signal to noise, 80 % of the band (libsamplerate's documentation): beyond what 8 kHz and 16 bits show."""


class StreamResampler:
    """PCM16 mono from one rate to another, chunk by chunk."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._ratio = to_hz / from_hz
        self._resampler = None if from_hz == to_hz else samplerate.Resampler(CONVERTER, channels=1)

    def push(self, pcm: bytes) -> bytes:
        """Convert one chunk of whole samples; some of it comes out with the next chunk."""
        return self._process(pcm, end=False)

    def flush(self) -> bytes:
        """What is still inside at the end of the stream."""
        return self._process(b"", end=True)

    def _process(self, pcm: bytes, *, end: bool) -> bytes:
        if self._resampler is None:
            return pcm
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
        converted = self._resampler.process(samples, self._ratio, end_of_input=end)
        out: bytes = np.clip(np.rint(converted * 32768), -32768, 32767).astype("<i2").tobytes()
        return out
