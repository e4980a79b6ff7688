"""Codecs of the phone side to PCM16 little-endian and back. Core.

Asterisk sends `slin` over RTP as 16-bit big-endian samples (network order, as L16 of RFC 3551 section 4.5.11).
"""

from __future__ import annotations

from array import array

import numpy as np

from ari_app.audio.format import SAMPLE_BYTES

ULAW_BIAS = 0x84
ULAW_CLIP = 32635


def slin_to_pcm16(payload: bytes) -> bytes:
    """Big-endian samples to PCM16 little-endian; an odd last byte is dropped."""
    return _swapped(payload[: len(payload) // SAMPLE_BYTES * SAMPLE_BYTES])


def pcm16_to_slin(pcm: bytes) -> bytes:
    """PCM16 little-endian to big-endian samples."""
    return _swapped(pcm)


def _swapped(pcm: bytes) -> bytes:
    samples = array("h", pcm)  # a third of numpy's time at 160 samples
    samples.byteswap()
    return samples.tobytes()


def ulaw_to_pcm16(payload: bytes) -> bytes:
    """G.711 µ-law (ITU-T G.711, table 2a): one byte per sample."""
    pcm: bytes = _FROM_ULAW[np.frombuffer(payload, np.uint8)].tobytes()
    return pcm


def pcm16_to_ulaw(pcm: bytes) -> bytes:
    """PCM16 to G.711 µ-law."""
    payload: bytes = _TO_ULAW[np.frombuffer(pcm, "<u2")].tobytes()
    return payload


def _ulaw_tables() -> tuple[np.ndarray, np.ndarray]:
    """256 samples by code, and 65,536 codes by the sample's bits."""
    codes = ~np.arange(256) & 0xFF
    magnitude = ((((codes & 0x0F) << 3) + ULAW_BIAS) << ((codes >> 4) & 7)) - ULAW_BIAS
    decoded = np.where(codes & 0x80, -magnitude, magnitude).astype("<i2")
    samples = np.arange(65536).astype(np.uint16).view(np.int16).astype(np.int32)
    biased = np.minimum(np.abs(samples), ULAW_CLIP) + ULAW_BIAS
    segment = np.frexp(biased)[1] - 8  # the bias puts the smallest value at 2**7
    code = (segment << 4) | ((biased >> (segment + 3)) & 0x0F) | np.where(samples < 0, 0x80, 0)
    return decoded, (~code & 0xFF).astype(np.uint8)


_FROM_ULAW, _TO_ULAW = _ulaw_tables()
