"""When nobody says anything any more, and when a call has lasted long enough. Core."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from ari_app.audio.format import FRAME_MS
from ari_app.dialog.ports import (
    BargeInDismissed,
    CallerNotUnderstood,
    CallerSaid,
    CallerSpeechStarted,
    EngineFailed,
    Fact,
)

WARNING_S = 30.0
"""Before the end of the longest call; a limit below twice that comes without warning."""
PATIENCE = 0.5
"""Who does not answer the question whether they are there has that part of the first wait."""
LONGEST_TURN_S = 120.0
"""From the caller's first sound to the word of what became of it. Our own turns end after 30 s; a Realtime server that
goes by meaning lets a story last."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a call may last, and how long it may be silent; 0: for ever."""

    idle_s: float = 0.0
    max_call_s: float = 0.0


class Due(Enum):
    """What is to be said now."""

    IDLE = auto()
    """Whether the caller is still there."""
    PARTING = auto()
    """That nobody seems to be there; then the call ends."""
    WARNING = auto()
    """That the call ends soon."""
    LIMIT = auto()
    """That it ends now."""


class Watch:
    """Told of each frame of the conversation and of each fact; says what is due, each thing once.

    Silence is the time in which neither side speaks. What the bot says interrupts it and does not begin it anew: a bot
    that speaks up on its own would else keep an empty line open for ever.
    """

    def __init__(self, limits: Limits, *, farewell_ms: float) -> None:
        """`farewell_ms`: the length of the words for LIMIT, which end when the time does."""
        self._limits = limits
        self._ahead: list[tuple[float, Due]] = []
        """What the length of the call brings, by its milliseconds, the last first."""
        if limits.max_call_s:
            self._ahead.append((limits.max_call_s * 1000 - farewell_ms, Due.LIMIT))
        if limits.max_call_s >= 2 * WARNING_S:
            self._ahead.append(((limits.max_call_s - WARNING_S) * 1000, Due.WARNING))
        self._length_ms = 0.0
        self._silent_ms = 0.0
        self._asked = False
        self._speaking_ms = 0.0
        """So much longer the caller is believed to speak: of a cough that becomes no turn nothing more is told."""

    def push_fact(self, fact: Fact) -> None:
        """Something happened in the conversation."""
        match fact:
            case CallerSpeechStarted():
                self._speaking_ms = self._speaking_ms or LONGEST_TURN_S * 1000
            case CallerSaid():
                self._asked = False
                self._speaking_ms = self._silent_ms = 0.0
            case CallerNotUnderstood() | BargeInDismissed() | EngineFailed():
                self._speaking_ms = 0.0

    def begin(self, after_s: float) -> None:
        """The conversation begins; the call has lasted for so long."""
        self._length_ms = after_s * 1000

    def push_frame(self, *, waiting: bool) -> Due | None:
        """20 ms have passed; `waiting`: it was the caller's turn to say something."""
        self._length_ms += FRAME_MS
        if self._ahead and self._length_ms >= self._ahead[-1][0]:
            return self._ahead.pop()[1]
        if self._speaking_ms > 0:
            self._speaking_ms -= FRAME_MS
            return None
        if not (self._limits.idle_s and waiting):
            return None
        self._silent_ms += FRAME_MS
        patience_ms = 1000 * self._limits.idle_s * (PATIENCE if self._asked else 1)
        if self._silent_ms < patience_ms:
            return None
        self._silent_ms = 0.0
        if self._asked:
            return Due.PARTING
        self._asked = True
        return Due.IDLE
