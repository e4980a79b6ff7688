"""The brain around a brain: what lets the application say goodbye in the middle of any conversation. Shell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from ari_app.audio.format import bytes_to_ms
from ari_app.dialog.ports import Brain, Fact, ItemFinished, Playout, PlayoutMark

ITEM = "goodbye"
GRACE_S = 2.0
"""Playout reaches the end of the last words within their length and this."""


class Farewell:
    """Implements `Brain` by another one, until there are last words to be said.

    Args:
        goodbye_pcm: the last words at 8 kHz; without any, a goodbye is silent.
    """

    def __init__(self, brain: Brain, goodbye_pcm: bytes) -> None:
        self._brain = brain
        self._goodbye_pcm = goodbye_pcm
        self._playout: Playout | None = None
        self._leaving = False
        self._over = asyncio.Event()
        """Everything is said, or nobody is left to hear it."""

    async def say_goodbye(self) -> None:
        """End the conversation and say the last words; returns when they were heard. Nothing without a caller."""
        if self._playout is None or self._over.is_set() or self._leaving or not self._goodbye_pcm:
            return
        self._leaving = True
        await self._brain.close()
        self._playout.clear()
        self._playout.play(ITEM, self._goodbye_pcm)
        self._playout.finish(ITEM)
        longest_s = bytes_to_ms(len(self._goodbye_pcm)) / 1000 + GRACE_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await self._over.wait()

    # --- Brain ---------------------------------------------------------------------------------------

    def prepare(self) -> None:
        self._brain.prepare()

    async def start(self, playout: Playout, report: Callable[[Fact], None]) -> None:
        await self._brain.start(playout, report)
        self._playout = playout

    def push_audio(self, frame: bytes, now: float) -> None:
        if not self._leaving:
            self._brain.push_audio(frame, now)

    def push_sent(self, frame: bytes) -> None:
        self._brain.push_sent(frame)

    def push_mark(self, mark: PlayoutMark, now: float) -> None:
        if not self._leaving:
            self._brain.push_mark(mark, now)
        elif isinstance(mark, ItemFinished) and mark.item_id == ITEM:
            self._over.set()

    async def close(self) -> None:
        self._over.set()
        await self._brain.close()
