"""Byte order of slin, from values written by hand (RFC 3551 section 4.5.11: network order)."""

from hypothesis import given
from hypothesis import strategies as st

from ari_app.audio.codec import pcm16_to_slin, slin_to_pcm16

# 1, -2, 256, 32767, -32768
BIG_ENDIAN = bytes.fromhex("0001 fffe 0100 7fff 8000")
LITTLE_ENDIAN = bytes.fromhex("0100 feff 0001 ff7f 0080")


def test_known_samples() -> None:
    assert slin_to_pcm16(BIG_ENDIAN) == LITTLE_ENDIAN
    assert pcm16_to_slin(LITTLE_ENDIAN) == BIG_ENDIAN


def test_an_odd_last_byte_is_dropped() -> None:
    assert slin_to_pcm16(BIG_ENDIAN + b"\x55") == LITTLE_ENDIAN
    assert slin_to_pcm16(b"\x55") == b""


@given(st.binary(max_size=64))
def test_round_trip(data: bytes) -> None:
    whole = data[: len(data) // 2 * 2]
    assert pcm16_to_slin(slin_to_pcm16(data)) == whole
