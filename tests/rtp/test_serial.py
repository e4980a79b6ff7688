"""Wrap-around arithmetic (RFC 1982)."""

from hypothesis import given
from hypothesis import strategies as st

from ari_app.rtp.serial import uint16_add, uint16_ahead, uint32_add

uint16 = st.integers(0, 2**16 - 1)


def test_known_values() -> None:
    assert uint16_add(65535, 1) == 0
    assert uint16_ahead(0, 65535) == 1
    assert uint16_ahead(65535, 0) == -1
    assert uint16_ahead(32767, 0) == 32767
    assert uint16_ahead(32768, 0) == -32768
    assert uint32_add(2**32 - 1, 160) == 159


@given(uint16, st.integers(-(2**15), 2**15 - 1))
def test_ahead_undoes_add(a: int, step: int) -> None:
    assert uint16_ahead(uint16_add(a, step), a) == step


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_uint32_add_stays_in_range(a: int, b: int) -> None:
    assert 0 <= uint32_add(a, b) < 2**32
    assert (uint32_add(a, b) - a - b) % 2**32 == 0
