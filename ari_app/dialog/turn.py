"""One caller turn on its way from a guess to its answer, as the pipeline keeps it. Shell, owned by the pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ari_app.dialog.ports import TurnTimed
from ari_app.dialog.response import Response
from ari_app.dialog.turns import TurnEnded


class Turn:
    """What is known of it; number 0 is the greeting."""

    def __init__(self, number: int, ended: TurnEnded | None) -> None:
        self.number = number
        self.ended = ended
        self.committed = asyncio.Event()
        """It is over for sure: from now on it may leave traces."""
        self.words: str | None = None
        """What was understood, "" for nothing; None: not known yet."""
        self.language: str | None = None
        self.rejected = ""
        """Why nothing was."""
        self.response: Response | None = None
        self.task: asyncio.Task[None]
        self.listened = asyncio.Event()
        """Its words are in the history, or never will be."""
        self.put_off = False
        """The caller was asked for patience."""
        self.requests = 0
        """To speech-to-text and chat."""
        self._stages: dict[str, float] = {}
        self._timed = False
        self._patience: asyncio.Timeout | None = None

    @property
    def in_vain(self) -> bool:
        """The caller was asked for patience, and has heard nothing of the answer."""
        return self.put_off and not (self.response and self.response.outcome())

    @asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """For as long as the caller has it: a context that ends with TimeoutError after `lose_patience`."""
        try:
            async with asyncio.timeout(None) as self._patience:
                yield
        finally:
            self._patience = None

    def lose_patience(self, now: float) -> bool:
        """The answer is given up; `now` is the loop's time. False when none is being spoken."""
        if self._patience is None:
            return False
        self._patience.reschedule(now)
        return True

    def reached(self, stage: str, at: float) -> None:
        """Note the first time of a stage, a field of `TurnTimed`."""
        self._stages.setdefault(stage, at)

    def take_timed(self) -> TurnTimed | None:
        """The waterfall, once; the greeting has none."""
        if self.ended is None or self._timed or not self.committed.is_set():
            return None
        self._timed = True
        return TurnTimed(self.number, self.ended.speech_end_at, self.ended.at, **self._stages)
