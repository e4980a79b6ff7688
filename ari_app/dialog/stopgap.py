"""Local sentences, for when the engines fail or take long: rendered at start, played without any of them. Shell."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from ari_app.dialog.phrasebook import Phrasebook
from ari_app.dialog.ports import ItemFinished, Playout, PlayoutMark

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
        self._said: Counter[str] = Counter()

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
        self._said[item_id] += 1
        if (times := self._said[item_id]) > 1:
            item_id += f".{times}"
        self._playout.play(item_id, pcm)
        self._playout.finish(item_id)
        return True

    def push_mark(self, mark: PlayoutMark) -> None:
        if isinstance(mark, ItemFinished) and mark.item_id.endswith(f".{LAST_WORDS}"):
            self._over.set()

    async def last_words_heard(self) -> None:
        """Until the caller has heard the sentence for LAST_WORDS."""
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                await self._over.wait()
        except TimeoutError:
            logger.warning("playout did not reach the end of the last words")
