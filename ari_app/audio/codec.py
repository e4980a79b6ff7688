"""Codecs of the phone side to PCM16 little-endian and back. Core.

Asterisk sends `slin` over RTP as 16-bit big-endian samples (network order, as L16 of RFC 3551 section 4.5.11).
"""

from __future__ import annotations

from array import array

from ari_app.audio.format import SAMPLE_BYTES


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
