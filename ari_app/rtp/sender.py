"""The one thread that paces all legs of the process. Shell.

Frames leave from a thread of their own, so that no work of the event loop, however long, makes a caller's audio late.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from ari_app.audio.format import FRAME_MS
from ari_app.rtp.pacer import FrameClock

logger = logging.getLogger(__name__)

PHASES = 5
"""Every 4 ms a fifth of the legs is sent."""
SWITCH_INTERVAL_S = 0.0005
"""How long another thread may keep the interpreter from the sender; Python's own default is 5 ms."""


class Leg(Protocol):
    """What is paced."""

    def send_due(self, count: int, skipped: int, now: float) -> None:
        """Send the `count` frames that are due, then pass over the time of `skipped` ones. In the sender's thread."""
        ...

    def tell(self) -> None:
        """Tell the listeners what left since the last time. On the loop."""
        ...


@dataclass(slots=True)
class _Phase:
    """Legs that are sent together."""

    clock: FrameClock
    legs: tuple[Leg, ...] = ()
    """Replaced, never changed: the thread reads it without a lock."""
    telling: bool = False
    """The loop has not yet told of what left before: once is enough, however long it takes."""


class RtpSender:
    """Paces all legs of the process by absolute deadline, in one thread.

    The legs are spread over `PHASES` moments of a frame, so that a hundred calls are no burst of a hundred packets.
    """

    def __init__(self) -> None:
        now = time.monotonic()
        self._phases = [_Phase(FrameClock(now + i * FRAME_MS / 1000 / PHASES)) for i in range(PHASES)]
        self._changing = threading.Lock()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._switch_interval_s = sys.getswitchinterval()

    async def __aenter__(self) -> RtpSender:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(loop,), name="rtp-sender", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread is not None
        self._stopping = True
        self._thread.join()  # one deadline at most
        sys.setswitchinterval(self._switch_interval_s)

    def add(self, leg: Leg) -> None:
        """Send this leg's frames from the next deadline on."""
        with self._changing:
            phase = min(self._phases, key=lambda phase: len(phase.legs))
            phase.legs = (*phase.legs, leg)

    def remove(self, leg: Leg) -> None:
        """Stop; idempotent."""
        with self._changing:
            for phase in self._phases:
                phase.legs = tuple(other for other in phase.legs if other is not leg)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stopping:
            # One phase at least is kept, so that a first leg does not wait longer than a frame.
            phase = min(
                (phase for phase in self._phases if phase.legs or phase is self._phases[0]),
                key=lambda phase: phase.clock.next_at,
            )
            time.sleep(max(0.0, phase.clock.next_at - time.monotonic()))
            if not self._send(phase, loop):
                return

    def _send(self, phase: _Phase, loop: asyncio.AbstractEventLoop) -> bool:
        """Send what is due; False when nobody is left to send for."""
        now = time.monotonic()
        count, skipped = phase.clock.due(now)
        legs = phase.legs
        if not count or not legs:
            return True
        for leg in legs:
            try:
                leg.send_due(count, skipped, now)
            except Exception:  # one leg's fault must not stop the sender of all
                logger.exception("an RTP leg failed; it is no longer sent")
                self.remove(leg)
        if not phase.telling:
            phase.telling = True
            try:
                loop.call_soon_threadsafe(self._tell, phase)
            except RuntimeError:  # the loop was closed without us
                return False
        return True

    def _tell(self, phase: _Phase) -> None:
        phase.telling = False
        for leg in phase.legs:
            leg.tell()
