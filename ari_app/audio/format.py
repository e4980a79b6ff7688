"""The audio inside the application: PCM16, mono, little-endian; 8 kHz and 20 ms frames on the phone side. Core."""

from __future__ import annotations

SAMPLE_BYTES = 2
FRAME_MS = 20
TELEPHONE_RATE_HZ = 8000
FRAME_BYTES = TELEPHONE_RATE_HZ * FRAME_MS // 1000 * SAMPLE_BYTES
"""One 20 ms frame at 8 kHz: 160 samples, 320 bytes (the packet size Asterisk uses for slin)."""

SILENT_FRAME = bytes(FRAME_BYTES)


def ms_to_bytes(ms: float, rate_hz: int = TELEPHONE_RATE_HZ) -> int:
    """Bytes of PCM16 mono that last `ms`, rounded down to a whole sample."""
    return int(ms * rate_hz / 1000) * SAMPLE_BYTES


def bytes_to_ms(length_bytes: int, rate_hz: int = TELEPHONE_RATE_HZ) -> float:
    """Duration in ms of `length_bytes` of PCM16 mono."""
    return length_bytes / SAMPLE_BYTES * 1000 / rate_hz
