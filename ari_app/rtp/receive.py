"""From the datagrams of one leg to a continuous sequence of 20 ms frames. Core.

Only the leg's own peer is heard, and of it one stream at a time. Asterisk takes a new SSRC when its source of audio
changes (hold, transfer, re-INVITE): another stream is followed when the old one has stopped and the new one comes at
the pace of speech. Nobody else's packets change anything, however many they are. Lost packets are concealed. Asterisk
sends nothing while the far end is silent, so when nothing comes, silence is produced by the clock: for the listener
time goes on. What is said after such a silence has its place by the time stamps, as far as the clock agrees. What turns
out to have been late is heard all the same, and the time is won back where the caller is quiet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ari_app.audio.format import FRAME_BYTES, FRAME_MS, SAMPLE_BYTES, SILENT_FRAME, TELEPHONE_RATE_HZ
from ari_app.rtp.conceal import FADE_SAMPLES, Concealer
from ari_app.rtp.jitter import JitterBuffer, Lost
from ari_app.rtp.packet import RtpPacket, parse_rtp
from ari_app.rtp.serial import uint16_add, uint32_add, uint32_ahead

PAYLOAD_TYPE_SLIN = 10
"""L16 mono in RFC 3551 is at 44.1 kHz; Asterisk uses the number for slin at 8 kHz, both ways."""
FRAME_S = FRAME_MS / 1000
FRAME_SAMPLES = FRAME_BYTES // SAMPLE_BYTES
PATIENCE_FRAMES = 6
STALL_S = 2 * FRAME_S
PATIENCE_S = PATIENCE_FRAMES * FRAME_S
"""Silence is produced when nothing came for so long: more than the wait for a gap, and than usual jitter. After a
stall of our own the packets in the socket's buffer come first."""
MAX_FILL_FRAMES = 500
"""Ten seconds at once; time beyond is passed over."""
MAX_AHEAD_FRAMES = 10
"""Further ahead of the clock (200 ms, the longest packet) quiet frames are left out."""
PACE_WINDOW_S = 2.0
"""So long the quickest packet is looked for: its place is the stream's, whatever the jitter of the others."""
SLACK_SAMPLES = FRAME_SAMPLES // 4
"""A stream is set right when this is missing to a whole frame: it is never a whole one astray, and never swings."""
CALM_FRAMES = 10
"""After so many quiet frames in a row the stream may be set right: no word and no echo of one is under way, which would
be looked for where it was."""
QUIET_PEAK = 100
"""About −50 dBFS: nobody misses such a frame."""
RELOCK_PACKETS = 3
RELOCK_S = 0.035
"""So many packets in a row of another SSRC, the old one not heard between them, make it the stream when they took so
long to come: two packets of 20 ms, less some jitter."""
MAX_RIVALS = 50
"""A second of speech, as it comes in one moment after a stall of our own; who sends more meanwhile does not speak."""
MAX_LOUD_AHEAD_FRAMES = 500
"""Ten seconds ahead of the clock every frame is left out: who knows our stream's number could stretch time else."""
KNOWN_PACKETS = 4
"""The last packets, with which copies are compared that were made before Asterisk: it numbers each anew and keeps the
time stamp."""
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
    not_audio: int = 0
    """Received, but empty or of another payload type (RFC 3389 comfort noise, say)."""
    silence_filled: int = 0
    """Frames produced because nothing came."""
    quiet_dropped: int = 0
    """Quiet frames left out to win back time."""
    ahead_dropped: int = 0
    """Frames left out because they came much faster than time goes."""
    sent: int = 0
    sent_late: int = 0
    """Sent more than a frame after their time."""
    sent_skipped: int = 0
    """Frames of time in which nothing was sent, after a long stall of ours."""
    sent_starved: int = 0
    """Frames of silence in the middle of what the bot says: the engine delivered it too slowly."""
    overfull_dropped: int = 0
    """Frames of speech not queued, because more waited already than any answer is long."""
    unsent: int = 0
    """Not taken by the kernel."""


class ReceiveStream:
    """One leg's incoming audio."""

    def __init__(self, decode: Callable[[bytes], bytes], *, started_at: float) -> None:
        """`decode` turns any payload into PCM16 at 8 kHz; `started_at` is when time begins for the leg."""
        self._decode = decode
        self._started_at = started_at
        self._peer: tuple[str, int] | None = None
        self._ssrc: int | None = None
        self._rivals: list[RtpPacket] = []
        """The latest packets, if they are of another SSRC."""
        self._rivals_since = started_at
        """When the first of them came."""
        self._jitter = JitterBuffer()
        self._concealer = Concealer()
        self._pcm = bytearray()
        self._frames = 0
        self._taken_at = started_at
        self._heard_at = started_at
        self._packet_samples = FRAME_SAMPLES
        self._next: tuple[int, int] | None = None
        """Number and time stamp of the packet that continues the sound; None before the first."""
        self._known: deque[tuple[int, bytes]] = deque(maxlen=KNOWN_PACKETS)
        """Time stamp and payload of the last packets."""
        self._copies = 0
        self._filled_samples = 0
        """Produced since the last packet was heard."""
        self._pace_since = started_at
        self._lead_samples: int | None = None
        """Of the quickest packet of this window: how far its last sample is ahead of the clock."""
        self._astray_frames = 0
        """To be left out where it is calm; below zero: to be put in."""
        self._quiet_frames = 0
        """In a row, while something is astray."""
        self._received = self._foreign = self._malformed = self._not_audio = 0
        self._filled = self._dropped = self._ahead_dropped = 0

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
            if len(packet.payload) > MAX_PAYLOAD_BYTES:
                raise ValueError(f"RTP payload of {len(packet.payload)} bytes is longer than 200 ms")
        except ValueError:
            self._malformed += 1
            return
        if self._ssrc is None or packet.ssrc == self._ssrc:
            self._ssrc = packet.ssrc
            self._drop_rivals()
            self._accept(packet, now)
        else:
            self._push_rival(packet, now)

    def take(self, now: float) -> list[bytes]:
        """The frames that are complete, and silence for time in which nothing came."""
        self._append(self._jitter.poll(now), now)
        elapsed = int((now - self._started_at) / FRAME_S + 1e-6)
        missing = elapsed - self._frames - len(self._pcm) // FRAME_BYTES - PATIENCE_FRAMES
        # After a stall of our own, packets wait in the socket: they are read before the next time.
        stalled, self._taken_at = now - self._taken_at > STALL_S, now
        if missing > 0 and not stalled:
            # A long packet lasts: the next one can't be there before it is over.
            lasts_s = (self._packet_samples - FRAME_SAMPLES) / TELEPHONE_RATE_HZ
            if now - self._heard_at >= PATIENCE_S + lasts_s - 1e-6:
                self._fill(missing)
        return self._cut(elapsed)

    @property
    def taken_until(self) -> float:
        """The place in time of the end of the last frame taken, by the stream's own count (s)."""
        return self._started_at + self._frames * FRAME_S

    @property
    def counters(self) -> RtpCounters:
        """So far."""
        jitter = self._jitter.counters
        return RtpCounters(
            received=self._received,
            lost=jitter.lost,
            late=jitter.late,
            reordered=jitter.reordered,
            duplicate=jitter.duplicate + self._copies,
            foreign=self._foreign + len(self._rivals),
            malformed=self._malformed,
            not_audio=self._not_audio,
            silence_filled=self._filled,
            quiet_dropped=self._dropped,
            ahead_dropped=self._ahead_dropped,
        )

    def _push_rival(self, packet: RtpPacket, now: float) -> None:
        """A packet of another stream: kept until it is known whether it is the next one, so that nothing is lost."""
        if self._rivals and (self._rivals[0].ssrc != packet.ssrc or len(self._rivals) == MAX_RIVALS):
            self._drop_rivals()
        if not self._rivals:
            self._rivals_since = now
        self._rivals.append(packet)
        if len(self._rivals) < RELOCK_PACKETS or now - self._rivals_since < RELOCK_S:
            return
        self._append(self._jitter.reset(), now)
        self._ssrc = packet.ssrc
        rivals, self._rivals = self._rivals, []
        for rival in rivals:
            self._accept(rival, now)

    def _drop_rivals(self) -> None:
        self._foreign += len(self._rivals)
        self._rivals.clear()

    def _accept(self, packet: RtpPacket, now: float) -> None:
        self._received += 1
        self._append(self._jitter.push(packet, now), now)

    def _append(self, items: Iterable[RtpPacket | Lost], now: float) -> None:
        for item in items:
            if isinstance(item, Lost):
                self._pcm += self._concealer.missing(self._lost_samples(item.count, now))
                continue
            pcm = self._decode(item.payload) if item.payload_type == PAYLOAD_TYPE_SLIN else b""
            number = uint16_add(item.sequence_number, 1)
            known = (item.timestamp, item.payload)
            copied = known in self._known
            if copied or not pcm:
                self._copies += copied
                self._not_audio += not copied
                self._next = self._next and (number, self._next[1])
                continue
            self._known.append(known)
            self._packet_samples = len(pcm) // SAMPLE_BYTES
            self._fill(self._silent_frames(item, now))
            self._next = (number, uint32_add(item.timestamp, self._packet_samples))
            self._pcm += self._concealer.heard(pcm)
            self._filled_samples = 0
            self._heard_at = now
            self._pace(now)

    def _silent_frames(self, packet: RtpPacket, now: float) -> int:
        """Silence that is still missing before this packet: its sender had nothing to send, nothing was lost."""
        missing = -self._lead(now) - self._packet_samples
        if self._next is not None:
            number, timestamp = self._next
            silent = uint32_ahead(packet.timestamp, timestamp) - self._filled_samples
            missing = min(missing, silent) if packet.sequence_number == number else 0
        return max((missing + FRAME_SAMPLES // 2) // FRAME_SAMPLES, 0)

    def _lead(self, now: float) -> int:
        """How many samples the stream is ahead of the clock."""
        clock = int((now - self._started_at) * TELEPHONE_RATE_HZ)
        return self._frames * FRAME_SAMPLES + len(self._pcm) // SAMPLE_BYTES - clock

    def _pace(self, now: float) -> None:
        """Keep step with the clock, to a frame: the far end's own runs a little faster or slower, and after a silence
        of the network the stream is where the silence left it. What is astray is won back where it is calm."""
        lead = self._lead(now)
        self._lead_samples = lead if self._lead_samples is None else max(self._lead_samples, lead)
        if now - self._pace_since >= PACE_WINDOW_S:
            frames = (abs(self._lead_samples) + SLACK_SAMPLES) // FRAME_SAMPLES
            self._astray_frames = frames if self._lead_samples > 0 else -frames
            self._pace_since, self._lead_samples, self._quiet_frames = now, None, 0

    def _lost_samples(self, count: int, now: float) -> int:
        """How much sound the lost packets carried: never more than the time that passed, so that a jump of the
        numbers does not stretch it, and less what was produced already while nothing came."""
        passed = max(int((now - self._heard_at) * TELEPHONE_RATE_HZ), FADE_SAMPLES)
        return max(min(count * self._packet_samples, passed) - self._filled_samples, 0)

    def _fill(self, frames: int) -> None:
        if not frames:
            return
        self._frames += max(frames - MAX_FILL_FRAMES, 0)
        frames = min(frames, MAX_FILL_FRAMES)
        # A started frame is completed first, so that what follows it keeps its place.
        samples = frames * FRAME_SAMPLES - len(self._pcm) % FRAME_BYTES // SAMPLE_BYTES
        self._pcm += self._concealer.missing(samples)
        self._filled_samples += samples
        self._filled += frames

    def _cut(self, elapsed: int) -> list[bytes]:
        frames: list[bytes] = []
        whole = len(self._pcm) // FRAME_BYTES * FRAME_BYTES
        for start in range(0, whole, FRAME_BYTES):
            frame = bytes(self._pcm[start : start + FRAME_BYTES])
            ahead = self._frames - elapsed
            if ahead >= MAX_LOUD_AHEAD_FRAMES:
                self._ahead_dropped += 1
                continue
            if ahead >= MAX_AHEAD_FRAMES and is_quiet(frame):
                self._leave_out()
                continue
            if self._astray_frames:
                self._quiet_frames = self._quiet_frames + 1 if is_quiet(frame) else 0
                if self._quiet_frames > CALM_FRAMES:
                    if self._astray_frames > 0:
                        self._leave_out()
                        continue
                    frames += self._put_in(-self._astray_frames)
            self._frames += 1
            frames.append(frame)
        del self._pcm[:whole]
        return frames

    def _leave_out(self) -> None:
        self._dropped += 1
        self._moved(-1)

    def _put_in(self, count: int) -> list[bytes]:
        self._frames += count
        self._filled += count
        self._moved(count)
        return [SILENT_FRAME] * count

    def _moved(self, frames: int) -> None:
        """The stream was lengthened by so many frames: what was seen of its lead is no longer so."""
        self._astray_frames = max(self._astray_frames + frames, 0)
        if self._lead_samples is not None:
            self._lead_samples += frames * FRAME_SAMPLES


def is_quiet(frame: bytes) -> bool:
    """True when no sample of the PCM16 frame is louder than `QUIET_PEAK`."""
    samples = np.frombuffer(frame, "<i2")
    return int(samples.min()) >= -QUIET_PEAK and int(samples.max()) <= QUIET_PEAK
