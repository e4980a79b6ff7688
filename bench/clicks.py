"""Callers that only click, each by a clock of its own; and what the recording of such a call must show.

The application echoes (`MODE=echo`), so each click is in the recording twice: left as it was heard, right as it was
sent back. The callers run in a process of their own: `python -m bench.clicks < plan.json > result.json`; it prints
`ready` first. Times are seconds of CLOCK_MONOTONIC, which nobody sets.
"""

from __future__ import annotations

import json
import math
import select
import socket
import struct
import sys
import time
import wave
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ari_app.audio.codec import pcm16_to_ulaw
from bench.media import BOT_PAUSE_S, FRAME_S, FRAME_SAMPLES, HEADER_BYTES, SILENT, bound, first_loud, receive
from bench.media import LOUD as LOUD_ANSWER

FIRST_S = 1.0
"""After the first packet from the other side."""
CLICK_SAMPLES = 16
LOUD = 4000
"""A sample above this is of a click."""
APART_S = 0.4
"""Clicks are further apart than this, and than their way there and back."""
FEW = 3
"""So many clicks tell where they stand, though a packet may be late at one of them."""
PATIENCE_S = 30.0
"""For the call to be answered."""


def click() -> bytes:
    """A µ-law packet: 2 ms of the loudest in the middle of silence."""
    samples = np.zeros(FRAME_SAMPLES, "<i2")
    samples[(FRAME_SAMPLES - CLICK_SAMPLES) // 2 :][:CLICK_SAMPLES] = 16000
    return pcm16_to_ulaw(samples.tobytes())


# --- the callers -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Caller:
    """One caller's ways."""

    clock_ppm: float = 0.0
    """How much faster than right its clock runs."""
    starts_after_s: float = FRAME_S
    """From the other side's first packet to its own."""
    spurt_frames: int = 0
    """Before and after a click; between these spurts it sends nothing. 0: it never pauses."""


def plan(
    callers: Sequence[Caller], ports: Sequence[int], *, seconds: float, every_s: float
) -> dict[str, Any]:
    """What the process of the callers is given."""
    return {
        "ports": list(ports),
        "callers": [asdict(caller) for caller in callers],
        "seconds": seconds,
        "every_frames": round(every_s / FRAME_S),
    }


@dataclass
class Leg:
    """One caller in its call."""

    number: int
    sock: socket.socket
    caller: Caller
    every_frames: int
    far: tuple[str, int] | None = None
    next_at: float = math.inf
    ends_at: float = math.inf
    frames: int = 0
    sequence: int = 0
    sent_at: list[float] = field(default_factory=list)
    heard_at: list[float] = field(default_factory=list)
    lost: int = 0
    last_sequence: int = -1

    def send(self) -> None:
        """The next packet of the stream."""
        assert self.far is not None
        since_first = self.frames - round(FIRST_S / FRAME_S)
        clicks = since_first >= 0 and since_first % self.every_frames == 0
        self.frames += 1
        due = self.next_at
        self.next_at += FRAME_S / (1 + self.caller.clock_ppm / 1e6)
        stamp = self.frames * FRAME_SAMPLES & 0xFFFFFFFF
        header = struct.pack("!BBHII", 0x80, 0, self.sequence & 0xFFFF, stamp, self.number + 7)
        off = (since_first + self.every_frames // 2) % self.every_frames - self.every_frames // 2
        if not self.caller.spurt_frames or abs(off) <= self.caller.spurt_frames:
            self.sequence += 1
            self.sock.sendto(header + (click() if clicks else SILENT), self.far)
        if clicks:
            self.sent_at.append(due)

    def take(self, data: bytes, arrived: float, source: tuple[str, int], seconds: float) -> None:
        """A packet of the other side; the first one says where it is."""
        if self.far is None:
            self.far = source
            self.next_at, self.ends_at = arrived + self.caller.starts_after_s, arrived + seconds
        (sequence,) = struct.unpack_from("!H", data, 2)
        if self.last_sequence >= 0:
            self.lost += (sequence - self.last_sequence - 1) & 0x7FFF
        self.last_sequence = sequence
        is_click = first_loud(data[HEADER_BYTES:]) >= 0
        if is_click and (not self.heard_at or arrived - self.heard_at[-1] > APART_S):
            self.heard_at.append(arrived)


def run(given: dict[str, Any]) -> dict[str, Any]:
    """Until each caller has clicked for `seconds`."""
    seconds = float(given["seconds"])
    legs = [
        Leg(number, bound(port), Caller(**ways), given["every_frames"])
        for number, (port, ways) in enumerate(zip(given["ports"], given["callers"], strict=True))
    ]
    poll = select.epoll()
    by_fd = {leg.sock.fileno(): leg for leg in legs}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    gives_up_at = time.monotonic() + seconds + PATIENCE_S
    going = list(legs)
    while going and time.monotonic() < gives_up_at:
        first = min(going, key=lambda leg: leg.next_at)
        wait_s = min(first.next_at - time.monotonic(), FRAME_S)
        if wait_s > 0:
            ahead_s = time.time() - time.monotonic()
            for fd, _ in poll.poll(wait_s):
                for data, arrived, source in receive(by_fd[fd].sock):
                    by_fd[fd].take(data, arrived - ahead_s, source, seconds)
            continue
        first.send()
        if first.next_at >= first.ends_at:
            going.remove(first)
    return {"calls": [{"sent_at": leg.sent_at, "heard_at": leg.heard_at, "lost": leg.lost} for leg in legs]}


# --- the recording -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alignment:
    """What a recording says of the clicks, against what the caller knows; by click, in ms."""

    echo_ms: list[float]
    """From the click on the left to its echo on the right."""
    caller_off_ms: list[float]
    """How much later a click is on the left, counted from the first one, than it was sent."""
    bot_off_ms: list[float]
    """The same of its echo on the right, and of when it arrived at the caller."""
    round_trip_ms: list[float]
    """On the wire."""

    @property
    def drift_ms(self) -> dict[str, float]:
        """By distance: how much it has changed from the first few clicks to the last few."""
        distances = {"beside": self.beside_ms, "caller": self.caller_off_ms, "bot": self.bot_off_ms}
        return {name: abs(median(values[-FEW:]) - median(values[:FEW])) for name, values in distances.items()}

    @property
    def beside_ms(self) -> list[float]:
        """How much shorter the echo is in the recording than on the wire, which adds the way through Asterisk."""
        return [wire - echo for wire, echo in zip(self.round_trip_ms, self.echo_ms, strict=True)]


def alignment(path: Path, sent_at: Sequence[float], heard_at: Sequence[float]) -> Alignment:
    """Read a call's `full_call.wav`.

    Raises:
        ValueError: clicks are missing in it, or too many.
    """
    with wave.open(str(path)) as file:
        rate_hz = file.getframerate()
        stereo = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    left, right = (np.array(clicks(stereo[:, side], rate_hz)) * 1000 for side in (0, 1))
    counts = {len(left), len(right), len(sent_at), len(heard_at)}
    if counts == {0} or len(counts) > 1:
        raise ValueError(
            f"{len(sent_at)} clicks were sent and {len(heard_at)} came back; recorded are {len(left)} and {len(right)}"
        )
    sent, heard = np.array(sent_at) * 1000, np.array(heard_at) * 1000
    return Alignment(
        echo_ms=(right - left).tolist(),
        caller_off_ms=(left - left[0] - (sent - sent[0])).tolist(),
        bot_off_ms=(right - right[0] - (heard - heard[0])).tolist(),
        round_trip_ms=(heard - sent).tolist(),
    )


def clicks(side: np.ndarray[Any, np.dtype[np.int16]], rate_hz: int) -> list[float]:
    """When each click begins, in seconds."""
    found: list[float] = []
    for at in np.flatnonzero(np.abs(side.astype(np.int32)) > LOUD) / rate_hz:
        if not found or at - found[-1] > APART_S:
            found.append(float(at))
    return found


def gaps(path: Path) -> list[float]:
    """From the frame of the caller's last sound to that of the bot's first, for each answer in a recording, in ms."""
    with wave.open(str(path)) as file:
        stereo = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2).astype(np.int32)
    left, right = (np.abs(stereo[:, side]) for side in (0, 1))
    spoken = np.flatnonzero(left) // FRAME_SAMPLES
    found: list[float] = []
    last_frame = -math.inf
    for frame in np.unique(np.flatnonzero(right > LOUD_ANSWER) // FRAME_SAMPLES):
        before = spoken[spoken <= frame]
        if (frame - last_frame) * FRAME_S > BOT_PAUSE_S and len(before):
            found.append(float(frame - before[-1]) * FRAME_S * 1000)
        last_frame = frame
    return found


def main() -> None:
    given = json.load(sys.stdin)
    print("ready", flush=True)
    json.dump(run(given), sys.stdout)


if __name__ == "__main__":
    main()
