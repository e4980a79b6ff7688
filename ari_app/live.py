"""The calls as somebody who watches sees them: what was said, how long it took, how loud it is. Shell without a socket.

Everything is bounded: the words kept of a call, the calls kept after their end, and what waits for a slow watcher, who
is let go when it is too much and may come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ari_app.call import Call
from ari_app.dialog import ports
from ari_app.happenings import Ended, Happening, LineHeard, Observer, Progress, RecordingFailed
from ari_app.record.events import name_of, values_of, with_stages

MAX_EVENTS = 400
"""Kept of each call, the latest."""
MAX_OVER = 50
"""Calls remembered after their end."""
MAX_WAITING = 2000
MAX_WATCHERS = 50
LEVEL_DECAY = 0.8
"""Of a level meter, per frame of 20 ms."""
SHOWN = (
    *(ports.CallerSpeechStarted, ports.CallerSaid, ports.CallerNotUnderstood, ports.BotSpeechStarted),
    *(ports.BotSaid, ports.BargeIn, ports.BargeInDismissed, ports.TurnTimed, ports.EngineFailed),
    *(ports.EngineUsed, ports.GaveUp),
)
"""Facts that a watcher is shown."""


Waiting = asyncio.Queue[dict[str, Any]]
"""What a watcher has not been told yet."""


class TooManyWatchers(Exception):
    """More than `MAX_WATCHERS` at once."""


@dataclass(slots=True)
class _Seen:
    """One call."""

    call: Call
    about: Mapping[str, object]
    began_at: float
    started: str
    stage: str = "setup"
    ending: str = ""
    line: dict[str, Any] = field(default_factory=dict)
    cost_usd: float | None = None
    cost_is_partial: bool = False
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    count: int = 0
    """Of its events so far."""
    peaks: dict[str, float] = field(default_factory=lambda: {"caller": 0.0, "bot": 0.0})

    @property
    def recording(self) -> str:
        """What becomes of its sound and words, or became."""
        state = self.call.recording.state
        return "kept" if self.stage == "over" and state in ("on", "paused") else state

    def summary(self) -> dict[str, Any]:
        return {
            **self.about,
            "started": self.started,
            "seconds": round(time.monotonic() - self.began_at, 1),
            "stage": self.stage,
            "recording": self.recording,
            "line": self.line,
            "cost_usd": self.cost_usd,
            "cost_is_partial": self.cost_is_partial,
            "ending": self.ending,
        }


class LiveCalls:
    """A `Watcher` of all calls that others may watch through."""

    def __init__(self) -> None:
        self._living: dict[str, _Seen] = {}
        self._over: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._queues: set[Waiting] = set()
        self._watchers = 0
        """Those who were let go and have not gone yet included."""

    # --- watching

    def summaries(self) -> list[dict[str, Any]]:
        """Every call that goes on, and the last ones that are over, newest first."""
        over = [{k: v for k, v in call.items() if k != "events"} for call in self._over.values()]
        return [*(seen.summary() for seen in reversed(self._living.values())), *reversed(over)]

    def detail(self, call_id: str) -> dict[str, Any] | None:
        """One call with its events; None when nothing is known of it (any more)."""
        if (seen := self._living.get(call_id)) is not None:
            return {**seen.summary(), "events": list(seen.events)}
        return self._over.get(call_id)

    def changed(self, call_id: str) -> None:
        """Something about a call changed that is no happening: tell the watchers."""
        if (seen := self._living.get(call_id)) is not None:
            self._tell("call", call_id, summary=seen.summary())

    def _recording_failed(self, call_id: str) -> None:
        """It may be known only after the call, when the rest is written."""
        self.changed(call_id)
        if (over := self._over.get(call_id)) is not None:
            over["recording"] = "failed"
            self._tell("call", call_id, summary={k: v for k, v in over.items() if k != "events"})

    def levels(self) -> dict[str, dict[str, int]]:
        """How loud both sides of each call are now, in dBFS, by call id."""
        return {
            call_id: {side: _dbfs(peak) for side, peak in seen.peaks.items()}
            for call_id, seen in self._living.items()
        }

    @contextlib.contextmanager
    def watch(self) -> Iterator[Waiting]:
        """What happens from now on; the queue is shut when its reader is too slow.

        Raises:
            TooManyWatchers: come back later.
        """
        if self._watchers >= MAX_WATCHERS:
            raise TooManyWatchers
        self._watchers += 1
        waiting: Waiting = asyncio.Queue(MAX_WAITING)
        self._queues.add(waiting)
        self._tap()
        try:
            yield waiting
        finally:
            self._watchers -= 1
            self._queues.discard(waiting)
            self._tap()

    def is_watching(self, waiting: Waiting) -> bool:
        """False once the reader was too slow."""
        return waiting in self._queues

    def _tap(self) -> None:
        """Levels cost time, and are taken only while somebody looks."""
        for seen in self._living.values():
            seen.call.tap = self._tap_of(seen) if self._queues else None

    @staticmethod
    def _tap_of(seen: _Seen) -> Any:
        peaks = seen.peaks

        def tap(side: str, frame: bytes) -> None:
            peak = int(np.abs(np.frombuffer(frame, "<i2").astype(np.int32)).max())
            peaks[side] = max(peak, peaks[side] * LEVEL_DECAY)

        return tap

    def _tell(self, message: str, of_call: str, /, **values: Any) -> None:
        for waiting in list(self._queues):
            try:
                waiting.put_nowait({**values, "type": message, "call": of_call})
            except asyncio.QueueFull:
                self._queues.discard(waiting)

    # --- Watcher

    def begin(self, call: Call, about: Mapping[str, object]) -> Observer:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        seen = _Seen(call, about, time.monotonic(), now)
        self._living[call.call_id] = seen
        started_at = asyncio.get_running_loop().time()
        if self._queues:
            self._tap()
        self._tell("call", call.call_id, summary=seen.summary())

        def observe(what: Happening) -> None:
            if isinstance(what, Progress):
                seen.stage = what.stage
                self._tell("call", call.call_id, summary=seen.summary())
            elif isinstance(what, LineHeard):
                seen.line = what.quality.told()
                self._tell("call", call.call_id, summary=seen.summary())
            elif isinstance(what, RecordingFailed):
                self._recording_failed(call.call_id)
            elif isinstance(what, Ended):
                seen.stage, seen.ending = "over", str(what.ending)
                self._over[call.call_id] = {**seen.summary(), "events": list(seen.events)}
                while len(self._over) > MAX_OVER:
                    self._over.popitem(last=False)
                del self._living[call.call_id]
                call.tap = None
                self._tell("call", call.call_id, summary=seen.summary())
            elif isinstance(what, SHOWN):
                seen.count += 1
                values = {"event": name_of(what), "n": seen.count, **values_of(what, started_at)}
                event = with_stages(values)
                if isinstance(what, ports.EngineUsed):  # several in each turn: they are not kept
                    seen.cost_usd, seen.cost_is_partial = what.call_cost_usd, what.call_cost_is_partial
                    self._tell("call", call.call_id, summary=seen.summary())
                else:
                    seen.events.append(event)
                self._tell("event", call.call_id, **event)

        return observe

    def refused(self, why: str) -> None:
        self._tell("refused", "", reason=why)


def _dbfs(peak: float) -> int:
    return round(max(20 * math.log10(max(peak, 1.0) / 32768), -90.0))
