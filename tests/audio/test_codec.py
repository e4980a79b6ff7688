"""Byte order of slin and µ-law, from values written by hand (RFC 3551 section 4.5.11; ITU-T G.711 table 2a)."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.audio.codec import pcm16_to_slin, pcm16_to_ulaw, slin_to_pcm16, ulaw_to_pcm16

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


@pytest.mark.parametrize(
    ("sample", "code"),
    [(0, 0xFF), (8, 0xFE), (-8, 0x7E), (120, 0xF0), (132, 0xEF), (-132, 0x6F), (32124, 0x80), (-32124, 0x00)],
)
def test_ulaw_decision_values(sample: int, code: int) -> None:
    assert pcm16_to_ulaw(struct.pack("<h", sample)) == bytes([code])
    assert ulaw_to_pcm16(bytes([code])) == struct.pack("<h", sample)


def test_ulaw_survives_the_round_trip_and_its_steps_grow_with_the_level() -> None:
    codes = bytes(code for code in range(256) if code != 0x7F)  # 0x7F is the other zero
    assert pcm16_to_ulaw(ulaw_to_pcm16(codes)) == codes
    for sample in range(-32768, 32768, 7):
        (back,) = struct.unpack("<h", ulaw_to_pcm16(pcm16_to_ulaw(struct.pack("<h", sample))))
        assert abs(back - sample) <= max(8, abs(sample) / 24), sample
