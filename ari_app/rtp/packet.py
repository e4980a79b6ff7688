"""RTP packets to bytes and back (RFC 3550 section 5.1). Core."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

_HEADER = struct.Struct("!BBHII")
HEADER_BYTES = _HEADER.size


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """One packet; CSRC list, header extension and padding are understood on receipt and dropped."""

    payload_type: int
    sequence_number: int
    timestamp: int
    ssrc: int
    payload: bytes = field(repr=False)
    marker: bool = False

    def to_bytes(self) -> bytes:
        """Serialise with the minimal header."""
        second = self.payload_type | (0x80 if self.marker else 0)
        header = _HEADER.pack(0x80, second, self.sequence_number, self.timestamp, self.ssrc)
        return header + self.payload


def parse_rtp(data: bytes) -> RtpPacket:
    """Parse one datagram.

    Raises:
        ValueError: it is not an RTP packet; says why.
    """
    if len(data) < HEADER_BYTES:
        raise ValueError(f"RTP packet of {len(data)} bytes is shorter than its header")
    first, second, sequence_number, timestamp, ssrc = _HEADER.unpack_from(data)
    if first >> 6 != 2:
        raise ValueError(f"RTP version is {first >> 6}, not 2")
    start = HEADER_BYTES + 4 * (first & 0x0F)
    if first & 0x10:
        if len(data) < start + 4:
            raise ValueError("RTP header extension is cut off")
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4])
    end = len(data)
    if end < start:
        raise ValueError("RTP header is longer than the packet")
    if first & 0x20:
        if not 1 <= data[-1] <= end - start:
            raise ValueError(f"RTP padding of {data[-1]} bytes does not fit the payload of {end - start}")
        end -= data[-1]
    return RtpPacket(second & 0x7F, sequence_number, timestamp, ssrc, data[start:end], bool(second & 0x80))
