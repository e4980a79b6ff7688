"""A tone for when there are no words. Core."""

from __future__ import annotations

import numpy as np

from ari_app.audio.format import TELEPHONE_RATE_HZ

LEVEL = 3000
TONE_S = 0.25


def two_tones() -> bytes:
    """Two falling tones, half a second: something went wrong. PCM16 at 8 kHz, without clicks."""
    t = np.arange(int(TELEPHONE_RATE_HZ * TONE_S)) / TELEPHONE_RATE_HZ
    envelope = np.clip(np.minimum(t, TONE_S - t) / 0.01, 0, 1)
    tones = [LEVEL * envelope * np.sin(2 * np.pi * hz * t) for hz in (620, 480)]
    return np.concatenate(tones).astype("<i2").tobytes()
