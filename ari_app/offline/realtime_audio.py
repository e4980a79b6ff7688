"""Audio of the Realtime protocol: its three formats to and from PCM16, and speech in chunks with its words. Core.

The caller's side becomes 8 kHz, as the telephone gives it, whatever the format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ari_app.audio.codec import pcm16_to_ulaw, ulaw_to_pcm16
from ari_app.audio.format import SAMPLE_BYTES, TELEPHONE_RATE_HZ
from ari_app.audio.resample import StreamResampler
from ari_app.offline.realtime_config import PCM_RATE_HZ

CHUNK_MS = 100
"""Of one `response.output_audio.delta`."""


def rate_hz(wire_format: dict[str, Any]) -> int:
    """Samples per second of a `format` object."""
    return PCM_RATE_HZ if wire_format["type"] == "audio/pcm" else TELEPHONE_RATE_HZ


class Decoder:
    """The caller's audio, in pieces of any length, to PCM16 at 8 kHz."""

    def __init__(self, wire_format: dict[str, Any]) -> None:
        self._type = wire_format["type"]
        self._resampler = StreamResampler(rate_hz(wire_format), TELEPHONE_RATE_HZ)
        self._half_sample = b""

    def push(self, data: bytes) -> bytes:
        if self._type == "audio/pcmu":
            return ulaw_to_pcm16(data)
        if self._type == "audio/pcma":
            return alaw_to_pcm16(data)
        data = self._half_sample + data
        whole = len(data) // SAMPLE_BYTES * SAMPLE_BYTES
        self._half_sample = data[whole:]
        return self._resampler.push(data[:whole])


def encoded(pcm: bytes, wire_format: dict[str, Any]) -> bytes:
    """PCM16 at the format's rate to the format."""
    if wire_format["type"] == "audio/pcmu":
        return pcm16_to_ulaw(pcm)
    if wire_format["type"] == "audio/pcma":
        return pcm16_to_alaw(pcm)
    return pcm


def duration_ms(data: bytes, wire_format: dict[str, Any]) -> float:
    """How long encoded audio lasts."""
    sample_bytes = SAMPLE_BYTES if wire_format["type"] == "audio/pcm" else 1
    return len(data) / sample_bytes * 1000 / rate_hz(wire_format)


def chunks(text: str, pcm: bytes, wire_format: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """A spoken piece in chunks of `CHUNK_MS`: encoded audio, and the words that end in it.

    Where a word ends is estimated from its place in the text, as if all letters took as long.
    """
    step = rate_hz(wire_format) * CHUNK_MS // 1000 * SAMPLE_BYTES
    written = 0
    for start in range(0, len(pcm), step):
        end = start + step
        cut = len(text)
        if end < len(pcm):
            cut = text.rfind(" ", 0, cut * end // len(pcm) + 1) + 1
        yield text[written:cut], encoded(pcm[start:end], wire_format)
        written = max(written, cut)


# --- G.711 A-law (ITU-T G.711, table 1a) --------------------------------------------------------------

ALAW_TOGGLE = 0x55
"""Every second bit is sent inverted."""


def alaw_to_pcm16(payload: bytes) -> bytes:
    """One byte per sample."""
    pcm: bytes = _FROM_ALAW[np.frombuffer(payload, np.uint8)].tobytes()
    return pcm


def pcm16_to_alaw(pcm: bytes) -> bytes:
    """PCM16 to one byte per sample."""
    payload: bytes = _TO_ALAW[np.frombuffer(pcm, "<u2")].tobytes()
    return payload


def _alaw_tables() -> tuple[np.ndarray, np.ndarray]:
    """256 samples by code, and 65,536 codes by the sample's bits."""
    codes = np.arange(256) ^ ALAW_TOGGLE
    mantissa, segment = codes & 0x0F, (codes >> 4) & 7
    magnitude = np.where(
        segment == 0, (mantissa << 4) + 8, ((mantissa << 4) + 0x108) << np.maximum(segment - 1, 0)
    )
    decoded = np.where(codes & 0x80, magnitude, -magnitude).astype("<i2")
    samples = np.arange(65536).astype(np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.where(samples >= 0, samples, -samples - 1)
    segment = np.maximum(np.frexp(magnitude)[1] - 8, 0)
    code = (segment << 4) | ((magnitude >> (np.maximum(segment, 1) + 3)) & 0x0F)
    sign = np.where(samples >= 0, 0x80, 0)
    return decoded, ((code | sign) ^ ALAW_TOGGLE).astype(np.uint8)


_FROM_ALAW, _TO_ALAW = _alaw_tables()
