"""Codecs of the phone side to PCM16 little-endian and back. Core.

Asterisk sends `slin` over RTP as 16-bit big-endian samples (network order, as L16 of RFC 3551 section 4.5.11).
"""

from __future__ import annotations

import numpy as np


def slin_to_pcm16(payload: bytes) -> bytes:
    """Big-endian samples to PCM16 little-endian; an odd last byte is dropped."""
    return np.frombuffer(payload[: len(payload) & ~1], ">i2").astype("<i2").tobytes()


def pcm16_to_slin(pcm: bytes) -> bytes:
    """PCM16 little-endian to big-endian samples."""
    return np.frombuffer(pcm, "<i2").astype(">i2").tobytes()
