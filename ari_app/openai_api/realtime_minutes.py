"""What was said, in the order in which it was said. Core.

Transcripts come when they come, often after the answer. Nothing is reported or remembered before its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ari_app.dialog.history import History
from ari_app.dialog.ports import BotSaid, CallerSaid, Fact
from ari_app.openai_api.realtime_caller import CallerTurn

DEADLINE_S = 8.0
"""Later words of the caller are given up: those of the bot wait for them."""
HANDED_ON_S = 2.0
MAX_LINES = 32
"""Lines whose words are still to come; transcripts are seconds late at most."""


@dataclass(slots=True, eq=False)
class _Line:
    who: object
    since: float
    fact: Fact | None = None
    settled: bool = False


class Minutes:
    """Reports what both sides said, and keeps it as history, in the order in which it was said."""

    def __init__(self, report: Callable[[Fact], None], history: History) -> None:
        self._report = report
        self._history = history
        self._lines: deque[_Line] = deque()

    def expect(self, who: object, now: float) -> None:
        """A line of `who`, a turn or a response, stands here; its words come later."""
        self._lines.append(_Line(who, now))
        if len(self._lines) > MAX_LINES:
            self.settle(self._lines[0].who, None)

    def settle(self, who: object, fact: Fact | None) -> None:
        """The line's words; None: there are none. What nobody expects is ignored."""
        for line in self._lines:
            if line.who is who and not line.settled:
                line.fact, line.settled = fact, True
        self._flush()

    def overdue(self, now: float) -> list[CallerTurn]:
        """Turns whose words should have come."""
        return [
            line.who
            for line in self._lines
            if isinstance(line.who, CallerTurn)
            and not line.settled
            and now - line.since > (HANDED_ON_S if line.who.handed_on else DEADLINE_S)
        ]

    def pending(self) -> list[tuple[object, Fact | None]]:
        """Who spoke and is not in the history yet, in order, with the words where they are known."""
        return [(line.who, line.fact) for line in self._lines]

    def _flush(self) -> None:
        while self._lines and self._lines[0].settled:
            line = self._lines.popleft()
            match line.fact:
                case CallerSaid(text=text):
                    self._history.add_user(text)
                    if isinstance(line.who, CallerTurn):
                        line.who.understood = True
                case BotSaid(heard=heard, interrupted=interrupted):
                    self._history.add_assistant(heard, interrupted=interrupted)
            if line.fact is not None:
                self._report(line.fact)
