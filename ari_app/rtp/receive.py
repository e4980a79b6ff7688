"""From the datagrams of one leg to a continuous sequence of 20 ms frames. Core.

Only the leg's own peer is heard, and of it one stream at a time. Lost packets are concealed. Asterisk sends nothing
while the far end is silent, so when nothing comes, silence is produced by the clock: for the listener time goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ari_app.audio.format import FRAME_BYTES, FRAME_MS, SAMPLE_BYTES, SILENT_FRAME
from ari_app.rtp.jitter import JitterBuffer, Lost
from ari_app.rtp.packet import RtpPacket, parse_rtp

FRAME_S = FRAME_MS / 1000
PATIENCE_FRAMES = 6
PATIENCE_S = PATIENCE_FRAMES * FRAME_S
"""Silence is produced when nothing came for so long: more than the wait for a gap, and than usual jitter. After a
stall of our own the packets in the socket's buffer come first."""
MAX_FILL_FRAMES = 500
"""Ten seconds at once; time beyond is passed over."""
RELOCK_PACKETS = 3
"""Packets in a row of another SSRC that make it the stream, when the old one is not heard between them."""
CONCEALED_FRAMES = 3
"""A gap longer than 60 ms ends in silence (G.711 appendix I fades in the same time)."""
MAX_PAYLOAD_BYTES = 200 * 16
"""200 ms of slin, the longest packet Asterisk was seen to send."""


@dataclass(frozen=True, slots=True)
class RtpCounters:
    """What one leg received and sent, in packets."""

    received: int = 0
    """Accepted from our peer, of the current stream."""
    lost: int = 0
    late: int = 0
    reordered: int = 0
    duplicate: int = 0
    foreign: int = 0
    """From another address, or of another stream."""
    malformed: int = 0
    silence_filled: int = 0
    """Frames of silence produced because nothing came."""
    sent: int = 0
    sent_late: int = 0
    """Sent more than a frame after their time."""


class ReceiveStream:
    """One leg's incoming audio."""

    def __init__(self, decode: Callable[[bytes], bytes], *, started_at: float) -> None:
        """`decode` turns an RTP payload into PCM16 at 8 kHz; `started_at` is when time begins for the leg."""
        self._decode = decode
        self._started_at = started_at
        self._peer: tuple[str, int] | None = None
        self._ssrc: int | None = None
        self._rival: tuple[int, int] = (0, 0)
        self._jitter = JitterBuffer()
        self._finished = JitterBuffer().counters
        self._pcm = bytearray()
        self._last_packet_pcm = b""
        self._frames = 0
        self._packet_at = started_at
        self._received = self._foreign = self._malformed = self._filled = 0

    def lock(self, peer: tuple[str, int]) -> None:
        """Hear this address only; before that, nobody."""
        self._peer = peer

    def push(self, data: bytes, source: tuple[str, int], now: float) -> None:
        """Take one datagram; whatever is wrong with it is counted and costs this datagram only."""
        if source != self._peer:
            self._foreign += 1
            return
        try:
            packet = parse_rtp(data)
            if not packet.payload or len(packet.payload) > MAX_PAYLOAD_BYTES:
                raise ValueError(f"RTP payload of {len(packet.payload)} bytes")
        except ValueError:
            self._malformed += 1
            return
        if not self._is_current(packet.ssrc):
            self._foreign += 1
            return
        self._received += 1
        self._packet_at = now
        self._append(self._jitter.push(packet, now))

    def take(self, now: float) -> list[bytes]:
        """The frames that are complete, and silence for time in which nothing came."""
        self._append(self._jitter.poll(now))
        frames = [
            bytes(self._pcm[start : start + FRAME_BYTES])
            for start in range(0, len(self._pcm) - FRAME_BYTES + 1, FRAME_BYTES)
        ]
        del self._pcm[: len(frames) * FRAME_BYTES]
        self._frames += len(frames)
        missing = int((now - self._started_at) / FRAME_S) - self._frames - PATIENCE_FRAMES
        if missing > 0 and now - self._packet_at >= PATIENCE_S:
            # A started frame is completed first, so that what follows it keeps its place.
            frames += self._fill(min(missing, MAX_FILL_FRAMES))
            self._frames += missing
        return frames

    @property
    def counters(self) -> RtpCounters:
        """So far."""
        now, before = self._jitter.counters, self._finished
        return RtpCounters(
            received=self._received,
            lost=before.lost + now.lost,
            late=before.late + now.late,
            reordered=before.reordered + now.reordered,
            duplicate=before.duplicate + now.duplicate,
            foreign=self._foreign,
            malformed=self._malformed,
            silence_filled=self._filled,
        )

    def _fill(self, count: int) -> list[bytes]:
        self._filled += count
        self._last_packet_pcm = b""
        filled = [SILENT_FRAME] * count
        if self._pcm:
            filled[0] = bytes(self._pcm).ljust(FRAME_BYTES, b"\0")
            self._pcm.clear()
        return filled

    def _is_current(self, ssrc: int) -> bool:
        if self._ssrc is None or ssrc == self._ssrc:
            self._ssrc, self._rival = ssrc, (0, 0)
            return True
        seen = self._rival[1] + 1 if self._rival[0] == ssrc else 1
        self._rival = (ssrc, seen)
        if seen < RELOCK_PACKETS:
            return False
        before, now = self._finished, self._jitter.counters
        before.lost += now.lost
        before.late += now.late
        before.reordered += now.reordered
        before.duplicate += now.duplicate
        self._jitter = JitterBuffer()
        self._ssrc, self._rival = ssrc, (0, 0)
        return True

    def _append(self, items: Iterator[RtpPacket | Lost]) -> None:
        for item in items:
            if isinstance(item, Lost):
                self._pcm += conceal(self._last_packet_pcm, item.count)
                self._last_packet_pcm = b""
            else:
                pcm = self._decode(item.payload)
                self._pcm += pcm
                self._last_packet_pcm = pcm


def conceal(last: bytes, count: int) -> bytes:
    """Stand-in for `count` lost packets: the last one repeated while it fades, then silence of the same length."""
    if not last:
        return bytes(min(count, MAX_FILL_FRAMES) * FRAME_BYTES)
    samples = np.frombuffer(last, "<i2")
    repeats = max(1, CONCEALED_FRAMES * FRAME_BYTES // len(last))
    shown = np.tile(samples, min(count, repeats)).astype(np.float64)
    # Every second repetition runs backwards, so that the ends meet without a step.
    for start in range(0, len(shown), 2 * len(samples)):
        shown[start : start + len(samples)] = samples[::-1][: len(shown) - start]
    fade = np.clip(1 - np.arange(len(shown)) / (repeats * len(samples)), 0, 1)
    silent_bytes = min(count, MAX_FILL_FRAMES) * len(last) - len(shown) * SAMPLE_BYTES
    return (shown * fade).astype("<i2").tobytes() + bytes(silent_bytes)
