"""How many RTP streams Asterisk has room for: counted by the book."""

from __future__ import annotations

import pytest

from ari_app.ari.streams import calls_in, is_full, ports_for, streams_in, streams_used


@pytest.mark.parametrize(
    ("first", "last", "count"),
    [
        ("20000", "20002", 2),  # asterisk/asterisk#1757: 20000 and 20002
        ("10000", "10199", 100),
        ("10001", "10004", 2),  # 10002 and 10004
        ("", "", 13001),
        ("10000", "99999", 27768),  # Asterisk takes 65535 then
        ("0", "2047", 512),  # and 1024
    ],
)
def test_a_stream_takes_an_even_port(first: str, last: str, count: int) -> None:
    assert streams_in(first, last) == count


@pytest.mark.parametrize(("first", "last"), [("20000", "10000"), ("10001", "10001"), ("many", "20000")])
def test_what_is_no_range_is_refused(first: str, last: str) -> None:
    with pytest.raises(ValueError, match="range|invalid literal"):
        streams_in(first, last)


@pytest.mark.parametrize(
    ("streams", "calls"), [(1, 0), (2, 1), (5, 2), (20, 8), (48, 20), (100, 46), (5000, 2496)]
)
def test_as_many_calls_are_let_in_as_are_promised(streams: int, calls: int) -> None:
    assert calls_in(streams) == calls
    for taken in range(calls):
        assert not is_full(streams, 2 * taken + 1)
    assert is_full(streams, 2 * calls + 1)
    assert calls_in(streams_in("10000", str(10000 + ports_for(calls) - 1))) >= calls


def test_channels_without_rtp_do_not_count() -> None:
    assert (
        streams_used(["PJSIP/a-1", "UnicastRTP/127.0.0.1:4000-1", "Local/7@x-1;2", "Snoop/1-2", "SIP/b-1"])
        == 3
    )
