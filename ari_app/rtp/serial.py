"""Serial number arithmetic of RTP: 16-bit sequence numbers, 32-bit timestamps (RFC 1982, RFC 3550 A.1). Core."""

from __future__ import annotations


def uint16_add(a: int, b: int) -> int:
    """`a + b` modulo 2^16."""
    return (a + b) & 0xFFFF


def uint16_ahead(a: int, b: int) -> int:
    """How far `a` is ahead of `b`: −32768 to 32767."""
    return ((a - b + 0x8000) & 0xFFFF) - 0x8000


def uint32_add(a: int, b: int) -> int:
    """`a + b` modulo 2^32."""
    return (a + b) & 0xFFFFFFFF


def uint32_ahead(a: int, b: int) -> int:
    """How far `a` is ahead of `b`: −2^31 to 2^31 − 1."""
    return ((a - b + 0x8000_0000) & 0xFFFFFFFF) - 0x8000_0000
