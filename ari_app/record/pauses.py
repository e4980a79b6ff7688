"""When the recording was paused, and what must not be known of what was said then. Core.

Words are known seconds after they were spoken, when the pause may be over: what counts is when they were spoken.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ari_app.dialog.ports import BargeInDismissed, BotSaid, CallerSaid, Fact

WITHHELD = "[not recorded]"
"""Stands for what was said in a pause."""
MARGIN_S = 0.5
"""The sound of a turn begins before its first word and ends after its last one."""


class Pauses:
    """The pauses of one call. Times are of the loop's clock, in seconds."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []
        """In order; the last one ends at infinity while it lasts."""

    @property
    def paused(self) -> bool:
        return bool(self._spans) and self._spans[-1][1] == math.inf

    def begin(self, at: float) -> None:
        """Nothing is kept from now on."""
        if self._spans and at - self._spans[-1][1] < MARGIN_S:  # so their number is bounded, too
            self._spans[-1] = (self._spans[-1][0], math.inf)
        elif not self.paused:
            self._spans.append((at, math.inf))

    def end(self, at: float) -> None:
        """Go on."""
        if self.paused:
            self._spans[-1] = (self._spans[-1][0], at)

    def touch(self, begin: float | None, end: float) -> bool:
        """Whether something was paused in that time; with an unknown begin: ever before."""
        begin = -math.inf if begin is None else begin
        return any(begin - MARGIN_S < until and since < end + MARGIN_S for since, until in self._spans)

    def withheld(self, fact: Fact, now: float) -> Fact:
        """The fact as anybody may know it: without its words and its sound when some of them fell into a pause."""
        match fact:
            case CallerSaid(onset_at=onset_at, ended_at=ended_at):
                if self.touch(onset_at, now if ended_at is None else ended_at):
                    return replace(fact, text=WITHHELD, language=None, pcm=b"")
            case BotSaid(onset_at=onset_at):
                if self.touch(onset_at, now):
                    return replace(fact, text=WITHHELD, heard=WITHHELD if fact.heard else "", pcm=b"")
            case BargeInDismissed(onset_at=onset_at, at=at):
                if self.touch(onset_at, at):
                    return replace(fact, words=WITHHELD if fact.words else "")
        return fact
