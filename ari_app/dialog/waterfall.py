"""What an answer waited for, stage by stage: the one account that all who tell of it share. Core.

A stage counts from where the one before it ended, so the stages add up to the wait. What was ready before the silence
window had closed added nothing to it: that is told apart, as `ahead`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

STAGES = (
    ("silence window", "endpoint_at"),
    ("speech-to-text", "transcript_at"),
    ("first word", "first_token_at"),
    ("first sentence", "first_sentence_at"),
    ("first speech", "first_tts_byte_at"),
    ("on the line", "first_frame_at"),
)
"""Each stage's name, and the mark that ends it: a field of `TurnTimed`."""
_BEGIN, _WINDOW, _HEARD = "speech_end_at", STAGES[0], STAGES[-1]


@dataclass(frozen=True, slots=True)
class Stage:
    """Begin and end in ms after the caller's last word."""

    name: str
    begin_ms: int
    end_ms: int

    @property
    def ms(self) -> int:
        """How long it took."""
        return self.end_ms - self.begin_ms


@dataclass(frozen=True, slots=True)
class Waterfall:
    """One turn's, in the order of time."""

    wait_ms: int | None = None
    """From the caller's last word to the bot's first; None: no answer was heard."""
    stages: tuple[Stage, ...] = ()
    """What the wait is made of."""
    ahead: tuple[Stage, ...] = ()
    """What was done within the silence window, and cost no time."""


def waterfall(marks: Mapping[str, float | None]) -> Waterfall:
    """From the marks of a `TurnTimed`, in seconds of any clock; marks that were not reached are None or missing.

    Realtime has fewer marks than three engines, and may speak before it writes: what comes after the first speech was
    waited for by nobody.
    """
    spoken = marks.get(_BEGIN)
    if spoken is None:
        return Waterfall()
    reached = {name: (at - spoken) * 1000 for name, mark in STAGES if (at := marks.get(mark)) is not None}
    after = {name: round(ms) for name, ms in reached.items() if math.isfinite(ms)}
    wait_ms = after.pop(_HEARD[0], None)
    if wait_ms is not None and wait_ms < 0:
        return Waterfall()
    closed_ms = max(after.pop(_WINDOW[0], 0), 0)
    if wait_ms is not None:
        closed_ms = min(closed_ms, wait_ms)
    done = sorted(
        after.items(), key=lambda stage: stage[1]
    )  # stable: the table's order where times are equal
    late = [(name, ms) for name, ms in done if ms > closed_ms and (wait_ms is None or ms <= wait_ms)]
    early = [(name, ms) for name, ms in done if 0 <= ms <= closed_ms]
    end = [] if wait_ms is None else [(_HEARD[0], wait_ms)]
    return Waterfall(wait_ms, _chain([(_WINDOW[0], closed_ms), *late, *end]), _chain(early))


def _chain(ends: list[tuple[str, int]]) -> tuple[Stage, ...]:
    begins = [0, *(end for _, end in ends)]
    return tuple(Stage(name, begin, end) for (name, end), begin in zip(ends, begins, strict=False))
