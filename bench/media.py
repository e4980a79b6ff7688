"""The caller's media: real speech out at absolute deadlines, the bot's packets in with the kernel's time of arrival.

Runs in a process of its own: `python -m bench.media < plan.json > result.json`. Sockets are bound before the
calls are placed; the far address is learned from the first packet. Times are seconds of CLOCK_REALTIME, the
clock of the kernel's stamps.
"""

from __future__ import annotations

import json
import math
import select
import socket
import struct
import sys
import time
from array import array
from base64 import b64decode
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ari_app.audio.codec import pcm16_to_ulaw

FRAME_S = 0.02
FRAME_SAMPLES = 160
HEADER_BYTES = 12
SO_TIMESTAMPNS = 35
"""Linux: the arrival of a datagram as a timespec beside it."""
LOUD = 500
"""A sample above this is the bot's tone; G.711 silence is below 10."""
BOT_PAUSE_S = 0.5
"""The bot has finished when it was silent for so long."""
SILENT = b"\xff" * FRAME_SAMPLES
SETTLE_S = 0.5
OVER_S = 3.0
"""After something was said over the bot it has gone on by then, or answered, or is waiting."""
GONE_S = 2.0
"""A call without a packet for so long was hung up."""
PATIENCE_S = 12.0
"""A bot that has not answered by then has failed."""


def _decode_table() -> list[int]:
    table = []
    for code in range(256):
        inverted = ~code & 0xFF
        magnitude = ((((inverted & 0x0F) << 3) + 0x84) << ((inverted >> 4) & 7)) - 0x84
        table.append(-magnitude if inverted & 0x80 else magnitude)
    return table


HOLE_S = 0.12
"""Sound that is missing for so long was stopped."""
SAME_TONE_HZ = 50
_LINEAR = np.array(_decode_table(), np.int16)
_LEVEL = [abs(value) for value in _decode_table()]
_LOUD_CODES = bytes(code for code in range(256) if _LEVEL[code] > LOUD)
_QUIET = bytes(1 if _LEVEL[code] > LOUD else 0 for code in range(256))


def first_loud(payload: bytes) -> int:
    """Index of the first sample of the tone, or -1."""
    return payload.translate(_QUIET).find(1)


def last_loud(payload: bytes) -> int:
    """Index of the last sample of the tone, or -1."""
    return payload.translate(_QUIET).rfind(1)


def tone_hz(payload: bytes) -> int:
    """Of a packet that holds a tone: its frequency, to 25 Hz."""
    sign = _LINEAR[np.frombuffer(payload, np.uint8)] > 0
    return int((sign[1:] != sign[:-1]).sum()) * 25


@dataclass
class Call:
    """One leg: a socket, what it is saying, and what it noted."""

    number: int
    sock: socket.socket
    kind: str
    turns: int
    after_s: float
    """For `barge`: how long the bot speaks before it is interrupted."""
    ends_at: float = math.inf
    far: tuple[str, int] | None = None
    sequence: int = 0
    saying: list[bytes] = field(default_factory=list)
    said_until: float = 0.0
    """When the last packet with speech left."""
    onset_at: float = 0.0
    state: str = "connecting"
    since: float = 0.0
    first_packet_at: float = 0.0
    bot_started_at: float = 0.0
    bot_loud_at: float = 0.0
    bot_tone_hz: int = 0
    silent_at: float = 0.0
    """For `over`: the last sound before the bot fell silent."""
    resumed_at: float = 0.0
    tone_before_hz: int = 0
    echo: deque[int] = field(default_factory=deque)
    """Samples on their way back."""
    done_turns: int = 0
    notes: list[dict[str, Any]] = field(default_factory=list)
    gaps_ms: array[float] = field(default_factory=lambda: array("f"))
    received: int = 0
    lost: int = 0
    late: int = 0
    last_arrival: float = 0.0
    last_sequence: int = -1


class Media:
    """All calls of one batch, in one thread."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._utterances = [
            [raw[i : i + FRAME_SAMPLES] for i in range(0, len(raw), FRAME_SAMPLES)]
            for raw in map(b64decode, plan["utterances"])
        ]
        self._overs = [
            [raw[i : i + FRAME_SAMPLES] for i in range(0, len(raw), FRAME_SAMPLES)]
            for raw in map(b64decode, plan["over"])
        ]
        self._gain = 10 ** (plan["echo_db"] / 20) if plan.get("echo_db") is not None else 0.0
        echo_samples = int(plan.get("echo_delay_ms", 0) * FRAME_SAMPLES / FRAME_S / 1000)
        self._seconds = float(plan["seconds"])
        self.calls = [
            Call(number, bound(port), plan["kind"], plan["turns"], plan.get("after_s", 1.5))
            for number, port in enumerate(plan["ports"])
        ]
        for call in self.calls:
            call.echo.extend([0] * echo_samples)
        self._poll = select.epoll()
        self._by_fd = {call.sock.fileno(): call for call in self.calls}
        for fd in self._by_fd:
            self._poll.register(fd, select.EPOLLIN)

    def run(self) -> dict[str, Any]:
        """Until all calls are done, or the time is over."""
        began = time.time()
        next_at = began + FRAME_S
        while time.time() < began + self._seconds and any(call.state != "done" for call in self.calls):
            wait = next_at - time.time()
            if wait > 0:
                for fd, _ in self._poll.poll(wait):
                    self._receive(self._by_fd[fd])
                continue
            next_at += FRAME_S
            now = time.time()
            for call in self.calls:
                self._step(call, now)
                self._send(call)
        return {"calls": [_result(call) for call in self.calls]}

    # --- out

    def _send(self, call: Call) -> None:
        if call.far is None:
            return
        payload = spoken = call.saying.pop(0) if call.saying else SILENT
        if self._gain and len(call.echo) >= FRAME_SAMPLES:
            payload = self._with_echo(call, spoken)
        call.sequence += 1
        header = struct.pack(
            "!BBHII",
            0x80,
            0,
            call.sequence & 0xFFFF,
            call.sequence * FRAME_SAMPLES & 0xFFFFFFFF,
            call.number + 7,
        )
        try:
            call.sock.sendto(header + payload, call.far)
        except OSError:
            return
        if spoken != SILENT:
            now = time.time()
            if not call.onset_at:
                call.onset_at = now
            call.said_until = now

    def _with_echo(self, call: Call, spoken: bytes) -> bytes:
        returned = np.array([call.echo.popleft() for _ in range(FRAME_SAMPLES)])
        mixed = _LINEAR[np.frombuffer(spoken, np.uint8)] + self._gain * returned
        return pcm16_to_ulaw(np.clip(mixed, -32768, 32767).astype("<i2").tobytes())

    def _ask(self, call: Call) -> None:
        self._say(call, self._utterances[(call.number + call.done_turns) % len(self._utterances)])

    def _say(self, call: Call, frames: list[bytes]) -> None:
        call.saying = list(frames)
        call.onset_at = 0.0

    # --- in

    def _receive(self, call: Call) -> None:
        for data, arrived, address in receive(call.sock):
            self._take(call, data, arrived, address)

    def _take(self, call: Call, data: bytes, arrived: float, address: tuple[str, int]) -> None:
        (sequence,) = struct.unpack_from("!H", data, 2)
        if call.far is None:
            call.far = address
            call.first_packet_at = call.since = arrived
            call.state = "idle"
        if call.last_sequence >= 0:
            step = (sequence - call.last_sequence) & 0xFFFF
            if step > 0x8000:
                call.late += 1
                return
            call.lost += step - 1
            call.gaps_ms.append((arrived - call.last_arrival) * 1000)
        call.last_sequence, call.last_arrival = sequence, arrived
        call.received += 1
        payload = data[HEADER_BYTES:]
        if self._gain:
            call.echo.extend(_LINEAR[np.frombuffer(payload, np.uint8)].tolist())
        if first_loud(payload) >= 0:
            hole_s = arrived - call.bot_loud_at
            if hole_s > BOT_PAUSE_S:
                call.bot_started_at = arrived
            if hole_s > HOLE_S and call.state == "over" and not call.silent_at:
                call.silent_at, call.resumed_at = call.bot_loud_at, arrived
            call.bot_loud_at = arrived
            if last_loud(payload) - first_loud(payload) > FRAME_SAMPLES * 3 // 4:
                call.bot_tone_hz = tone_hz(payload)

    # --- what the caller does

    def _step(self, call: Call, now: float) -> None:
        getattr(self, f"_step_{call.kind}")(call, now)

    def _enter(self, call: Call, state: str, now: float) -> None:
        call.state, call.since = state, now

    def _quiet(self, call: Call, now: float) -> bool:
        return now - call.bot_loud_at > BOT_PAUSE_S and not call.saying

    def _step_turns(self, call: Call, now: float) -> None:
        """Ask, wait for the answer and its end, ask again; one note per turn."""
        match call.state:
            case "idle" if self._quiet(call, now) and now - call.since > SETTLE_S:
                self._ask(call)
                self._enter(call, "asking", now)
            case "asking" if call.bot_started_at > call.since:
                call.notes.append({"cut_off": 1})
                call.saying = []
                self._enter(call, "hearing", now)
            case "asking" if not call.saying:
                self._enter(call, "waiting", now)
            case "waiting" if call.bot_started_at > call.said_until:
                call.notes.append({"gap_ms": (call.bot_started_at - call.said_until) * 1000})
                self._enter(call, "hearing", now)
            case "waiting" if now - call.last_arrival > GONE_S:
                self._enter(call, "gone", now)
            case "waiting" if now - call.since > PATIENCE_S:
                call.notes.append({"gap_ms": None})
                self._enter(call, "hearing", now)
            case "hearing" if self._quiet(call, now):
                call.notes.append({"answer_ms": (call.bot_loud_at - call.bot_started_at) * 1000})
                call.done_turns += 1
                self._enter(call, "done" if call.done_turns == call.turns else "idle", now)

    def _step_over(self, call: Call, now: float) -> None:
        """Ask, let the bot speak for a while, say something over it, note whether it fell silent and what came next."""
        match call.state:
            case "idle" if self._quiet(call, now) and now - call.since > SETTLE_S:
                self._ask(call)
                self._enter(call, "asking", now)
            case "asking" if not call.saying and call.bot_started_at > call.said_until:
                self._enter(call, "hearing", now)
            case "asking" if now - call.since > PATIENCE_S:
                self._enter(call, "done", now)
            case "hearing" if now - call.bot_started_at > call.after_s:
                call.silent_at = call.resumed_at = 0.0
                call.tone_before_hz = call.bot_tone_hz
                self._say(call, self._overs[call.number % len(self._overs)])
                self._enter(call, "over", now)
            case "over" if not call.saying and now - call.said_until > OVER_S:
                silent_at = call.silent_at or (call.bot_loud_at if now - call.bot_loud_at > HOLE_S else 0.0)
                call.notes.append(
                    {
                        "clip": call.number % len(self._overs),
                        "stop_ms": (silent_at - call.onset_at) * 1000 if silent_at else None,
                        "pause_ms": (call.resumed_at - silent_at) * 1000 if call.resumed_at else None,
                        "went_on": abs(call.bot_tone_hz - call.tone_before_hz) <= SAME_TONE_HZ,
                    }
                )
                call.done_turns += 1
                self._enter(call, "done" if call.done_turns == call.turns else "ending", now)
            case "ending" if self._quiet(call, now):
                self._enter(call, "idle", now)

    def _step_barge(self, call: Call, now: float) -> None:
        """Ask, let the bot speak for a while, speak over it, note when it fell silent."""
        match call.state:
            case "idle" if self._quiet(call, now) and now - call.since > SETTLE_S:
                self._ask(call)
                self._enter(call, "asking", now)
            case "asking" if not call.saying and call.bot_started_at > call.said_until:
                self._enter(call, "hearing", now)
            case "asking" if now - call.since > PATIENCE_S:
                self._enter(call, "done", now)
            case "hearing" if now - call.bot_started_at > call.after_s:
                self._say(call, self._overs[0])
                self._enter(call, "over", now)
            case "over" if not call.saying and now - call.bot_loud_at > 0.15:
                call.notes.append({"stop_ms": (call.bot_loud_at - call.onset_at) * 1000})
                self._finish_barge(call, now)
            case "over" if now - call.since > 5:
                call.notes.append({"stop_ms": None})
                self._finish_barge(call, now)
            case "after" if call.bot_started_at > call.said_until:
                self._enter(call, "ending", now)
            case "ending" if self._quiet(call, now) or now - call.since > PATIENCE_S:
                self._enter(call, "done" if call.done_turns == call.turns else "idle", now)

    def _finish_barge(self, call: Call, now: float) -> None:
        call.done_turns += 1
        self._enter(call, "done" if call.done_turns == call.turns else "ending", now)

    def _step_echo(self, call: Call, now: float) -> None:
        """Short bursts come back: the round trip of the media path."""
        match call.state:
            case "idle" if now - call.since > SETTLE_S:
                self._say(call, self._overs[0][:1])
                self._enter(call, "waiting", now)
            case "waiting" if call.bot_loud_at > call.onset_at > 0:
                call.notes.append({"round_trip_ms": (call.bot_loud_at - call.onset_at) * 1000})
                call.done_turns += 1
                self._enter(call, "done" if call.done_turns == call.turns else "idle", now)
            case "waiting" if now - call.since > 2:
                call.notes.append({"round_trip_ms": None})
                call.done_turns += 1
                self._enter(call, "done" if call.done_turns == call.turns else "idle", now)

    def _step_listen(self, call: Call, now: float) -> None:
        """Only hear the greeting."""
        if call.state == "idle" and call.bot_started_at:
            call.notes.append({"first_sound_at": call.bot_started_at})
            self._enter(call, "done", now)


def _result(call: Call) -> dict[str, Any]:
    return {
        "first_packet_at": call.first_packet_at,
        "notes": call.notes,
        "gaps_ms": [round(gap, 3) for gap in call.gaps_ms],
        "received": call.received,
        "lost": call.lost,
        "late": call.late,
        "done": call.state == "done",
    }


def bound(port: int) -> socket.socket:
    """A caller's socket, whose datagrams are stamped by the kernel."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.bind(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


def receive(sock: socket.socket) -> Iterator[tuple[bytes, float, tuple[str, int]]]:
    """The audio packets that wait: data, when it arrived (CLOCK_REALTIME), from where."""
    while True:
        try:
            data, ancillary, _, address = sock.recvmsg(2048, 64)
        except OSError:  # nothing waits, or the other side's port is closed
            return
        arrived = time.time()
        for level, kind, stamp in ancillary:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                seconds, nanos = struct.unpack("qq", stamp)
                arrived = seconds + nanos / 1e9
        if len(data) > HEADER_BYTES and data[1] & 0x7F == 0:
            yield data, arrived, address


def main() -> None:
    media = Media(json.load(sys.stdin))
    print("ready", flush=True)
    json.dump(media.run(), sys.stdout)


if __name__ == "__main__":
    main()
