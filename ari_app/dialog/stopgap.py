"""Local sentences, for when the engines fail or take long: rendered at start, played without any of them. Shell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ari_app.dialog.phrasebook import Phrasebook
from ari_app.dialog.ports import ItemFinished, ItemStarted, Playout, PlayoutMark

logger = logging.getLogger(__name__)

LAST_WORDS = "regret"
LAST_WORDS_S = 60.0
"""The longest wait for playout to reach the end of the last sentence before giving up."""


class Stopgap:
    """One call's."""

    def __init__(self, phrases: Phrasebook) -> None:
        self._phrases = phrases
        self.language: str | None = None
        """Of the caller, where the engine names it."""
        self._playout: Playout | None = None
        self._over = asyncio.Event()
        self._hold: asyncio.TimerHandle | None = None

    def begin(self, playout: Playout) -> None:
        """The call has begun."""
        self._playout = playout

    def play(self, turn: int, purpose: str, *, name: str = "") -> bool:
        """Queue the sentence behind what is being said; False when there is none for the purpose."""
        pcm = self._phrases.get(purpose, self.language).pcm
        if not pcm or self._playout is None:
            return False
        self._over.clear()
        item_id = f"t{turn}.{name or purpose}"
        self._playout.play(item_id, pcm)
        self._playout.finish(item_id)
        return True

    def play_later(self, delay_s: float, play: Callable[[], None]) -> None:
        """Call `play` if by then no sound of the bot has begun."""
        self.cancel()
        self._hold = asyncio.get_running_loop().call_later(delay_s, play)

    def cancel(self) -> None:
        """What was to be played later is not needed any more."""
        if self._hold:
            self._hold.cancel()
            self._hold = None

    def push_mark(self, mark: PlayoutMark) -> None:
        if isinstance(mark, ItemStarted):
            self.cancel()
        elif isinstance(mark, ItemFinished) and mark.item_id.endswith(f".{LAST_WORDS}"):
            self._over.set()

    async def last_words_heard(self) -> None:
        """Until the caller has heard the sentence for LAST_WORDS."""
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                await self._over.wait()
        except TimeoutError:
            logger.warning("playout did not reach the end of the last words")
