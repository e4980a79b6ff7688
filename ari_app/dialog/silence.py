"""How long the caller has heard nothing although an answer is due. Core.

An engine's first piece has a deadline of its own, and so has each that follows. What comes in drips keeps both, and a
sentence that breaks off has been heard in part: only the caller's ear tells.
"""

from __future__ import annotations

from enum import Enum, auto

HOLDS = 3
"""So often is the caller asked for patience before the answer is given up."""


class Lack(Enum):
    """What the caller lacks."""

    A_WORD = auto()
    """Something to be told."""
    THE_ANSWER = auto()
    """The rest of it won't come in time."""


class Silence:
    """Fed once per frame."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since: float | None = None
        self._holds = 0

    def push(self, now: float, *, due: bool, sounding: bool = False, unfinished: bool = False) -> Lack | None:
        """Once for each `limit_s` of silence while an answer is `due`: what the caller lacks.

        Args:
            sounding: the caller hears the bot.
            unfinished: what the bot says has broken off in mid-sentence; nothing can be said before its end.
        """
        if not due:
            self._since, self._holds = None, 0
            return None
        if sounding or self._since is None:
            self._since = now
        if now - self._since < self._limit_s:
            return None
        self._since = now
        if unfinished or self._holds == HOLDS:
            return Lack.THE_ANSWER
        self._holds += 1
        return Lack.A_WORD
