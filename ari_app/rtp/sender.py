"""The one thread that paces all legs of the process. Shell.

Frames leave from a thread of their own, so that no work of the event loop, however long, makes a caller's audio late.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from types import TracebackType
from typing import Protocol

from ari_app.rtp.pacer import FrameClock

logger = logging.getLogger(__name__)

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


class RtpSender:
    """Paces all legs of the process by absolute deadline, in one thread.

    All legs at once: spread over the 20 ms they wake this process and Asterisk more often, which at a hundred calls on
    two cores cost a third more processor time and twice the jitter (`./scripts/bench --only capacity`).
    """

    def __init__(self) -> None:
        self._legs: tuple[Leg, ...] = ()
        """Replaced, never changed: the thread reads it without a lock."""
        self._changing = threading.Lock()
        self._stopping = False
        self._telling = False
        """The loop has not yet told of what left before: once is enough, however long it takes."""
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
            self._legs = (*self._legs, leg)

    def remove(self, leg: Leg) -> None:
        """Stop; idempotent."""
        with self._changing:
            self._legs = tuple(other for other in self._legs if other is not leg)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        clock = FrameClock(time.monotonic())
        while not self._stopping:
            time.sleep(max(0.0, clock.next_at - time.monotonic()))
            now = time.monotonic()
            count, skipped = clock.due(now)
            legs = self._legs
            if not count or not legs:
                continue
            for leg in legs:
                try:
                    leg.send_due(count, skipped, now)
                except Exception:  # one leg's fault must not stop the sender of all
                    logger.exception("an RTP leg failed; it is no longer sent")
                    self.remove(leg)
            if not self._telling:
                self._telling = True
                try:
                    loop.call_soon_threadsafe(self._tell)
                except RuntimeError:  # the loop was closed without us: nobody is left to send for
                    return

    def _tell(self) -> None:
        self._telling = False
        for leg in self._legs:
            leg.tell()
