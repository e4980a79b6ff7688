"""RTP packets, good and hostile (RFC 3550 section 5.1)."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.rtp.packet import RtpPacket, parse_rtp

uint32 = st.integers(0, 2**32 - 1)
packets = st.builds(
    RtpPacket,
    payload_type=st.integers(0, 127),
    sequence_number=st.integers(0, 2**16 - 1),
    timestamp=uint32,
    ssrc=uint32,
    payload=st.binary(max_size=400),
    marker=st.booleans(),
)


def test_known_bytes() -> None:
    packet = RtpPacket(10, 0x1234, 0x01020304, 0xDEADBEEF, b"\xab\xcd", marker=True)
    assert packet.to_bytes() == bytes.fromhex("80 8a 1234 01020304 deadbeef abcd")


@given(packets)
def test_round_trip(packet: RtpPacket) -> None:
    assert parse_rtp(packet.to_bytes()) == packet


@given(
    packets,
    st.lists(uint32, max_size=15),
    st.none() | st.integers(0, 20),
    st.none() | st.integers(1, 255),
)
def test_what_we_do_not_use_is_skipped(
    packet: RtpPacket, csrcs: list[int], extension_words: int | None, padding_bytes: int | None
) -> None:
    """CSRC list, header extension and padding, written field by field from the RFC's figure."""
    first = 0x80 | len(csrcs)
    middle = b"".join(struct.pack("!I", csrc) for csrc in csrcs)
    end = b""
    if extension_words is not None:
        first |= 0x10
        middle += struct.pack("!HH", 0xBEDE, extension_words) + b"\x99\x88\x77\x66" * extension_words
    if padding_bytes is not None:
        first |= 0x20
        end = bytes(padding_bytes - 1) + bytes([padding_bytes])
    plain = packet.to_bytes()
    assert parse_rtp(bytes([first]) + plain[1:12] + middle + packet.payload + end) == packet


@given(st.binary(max_size=100))
def test_any_bytes_give_a_packet_or_value_error(data: bytes) -> None:
    _parse_or_refuse(data)


@given(packets, st.integers(0, 255), st.integers(0, 420))
def test_damaged_packets_give_a_packet_or_value_error(packet: RtpPacket, first: int, length: int) -> None:
    _parse_or_refuse((bytes([first]) + packet.to_bytes()[1:])[:length])


def _parse_or_refuse(data: bytes) -> None:
    try:
        packet = parse_rtp(data)
    except ValueError:
        return
    assert packet.payload in data[12:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "shorter"),
        (bytes(11), "shorter"),
        (b"\x40" + bytes(11), "version is 1"),
        (b"\x81" + bytes(11), "longer than the packet"),
        (b"\x90" + bytes(11), "extension is cut off"),
        (b"\x90" + bytes(11) + b"\0\0\0\1", "longer than the packet"),
        (b"\xa0" + bytes(11), "padding"),
        (b"\xa0" + bytes(11) + b"\0", "padding"),
        (b"\xa0" + bytes(11) + b"\0\3", "padding"),
    ],
)
def test_refusals_say_why(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_rtp(data)
