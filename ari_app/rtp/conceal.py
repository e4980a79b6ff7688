"""Sound in place of packets that did not come, without clicks at either end. Core."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ari_app.audio.format import FRAME_BYTES, SAMPLE_BYTES, TELEPHONE_RATE_HZ

FADE_SAMPLES = TELEPHONE_RATE_HZ * 60 // 1000
"""A gap longer than 60 ms ends in silence (G.711 appendix I fades in the same time)."""
JOIN_SAMPLES = TELEPHONE_RATE_HZ * 5 // 1000


class Concealer:
    """Repeats the last frame while it fades, and joins the next packet to it. PCM16 at 8 kHz."""

    def __init__(self) -> None:
        self._last = b""
        self._made = 0
        """Samples made up since the last packet."""

    def heard(self, pcm: bytes) -> bytes:
        """A packet that came: itself, its beginning blended with what was made up before it."""
        joined = self._join(pcm) if self._made else pcm
        self._last = pcm[-FRAME_BYTES:]
        self._made = 0
        return joined

    def missing(self, samples: int) -> bytes:
        """A stand-in of `samples` samples."""
        made = self._make(samples)
        self._made += samples
        return np.rint(made).astype("<i2").tobytes().ljust(samples * SAMPLE_BYTES, b"\0")

    def _join(self, pcm: bytes) -> bytes:
        head = np.frombuffer(pcm[: JOIN_SAMPLES * SAMPLE_BYTES], "<i2").astype(np.float64)
        tail = np.zeros(len(head))
        made = self._make(len(head))
        tail[: len(made)] = made
        weight = np.arange(1, len(head) + 1) / (len(head) + 1)
        blended = np.rint(tail + (head - tail) * weight).astype("<i2").tobytes()
        return blended + pcm[len(blended) :]

    def _make(self, samples: int) -> npt.NDArray[np.float64]:
        """The next `samples` made-up samples, without the silence at their end."""
        audible = min(samples, FADE_SAMPLES - self._made)
        if audible <= 0 or not self._last:
            return np.zeros(0)
        last = np.frombuffer(self._last, "<i2")
        # Backwards first, then forwards: so that every two repetitions meet without a step.
        pattern = np.concatenate((last[::-1], last))
        position = np.arange(self._made, self._made + audible)
        return pattern[position % len(pattern)] * (1 - position / FADE_SAMPLES)
