"""The brain around a brain: what the application itself says, first, in between and last. Shell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from ari_app.audio.format import bytes_to_ms
from ari_app.dialog.history import heard_part
from ari_app.dialog.ports import (
    BargeIn,
    BotSaid,
    BotSpeechStarted,
    Brain,
    CallerSaid,
    Fact,
    ItemFinished,
    ItemStarted,
    Playout,
    PlayoutMark,
)

OPENING = "announcement"
GOODBYE = "goodbye"
GRACE_S = 2.0
"""Playout reaches the end of a sentence that waits for nothing within its length and this."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """Something that is said as it stands."""

    text: str = ""
    pcm: bytes = field(default=b"", repr=False)
    """Its speech at 8 kHz; without any it is not said."""


class Announcer:
    """Implements `Brain` by another one.

    Args:
        opening: what callers hear before all else, whole: nothing they say meanwhile is heard.
        goodbye: the last words; without any, a goodbye is silent.
    """

    def __init__(self, brain: Brain, *, opening: Sentence, goodbye: Sentence) -> None:
        self._brain = brain
        self._opening = opening
        self._goodbye = goodbye
        self._playout: Playout | None = None
        self._report: Callable[[Fact], None] = lambda fact: None
        self._started = self._leaving = False
        self._opened = asyncio.Event()
        self._over = asyncio.Event()
        """Everything is said, or nobody is left to hear it."""
        self._turn = 0
        self._remarks: dict[str, Sentence] = {}
        """What was said in between and is not over, by playout item."""
        self._count = 0

    async def say_goodbye(self) -> None:
        """End the conversation and say the last words; returns when they were heard. Nothing without a caller."""
        if self._playout is None or self._over.is_set() or self._leaving or not self._goodbye.pcm:
            return
        self._leaving = True
        await self._brain.close()
        self._playout.clear()
        self._conclude_remarks()
        self._play(GOODBYE, self._goodbye)
        await self._heard(self._over, self._goodbye)

    def say(self, sentence: Sentence) -> bool:
        """Say it after what is being said now, in the bot's name; the bot knows of it. False when it is too late."""
        if not self._started or self._leaving or self._over.is_set():
            return False
        self._count += 1
        item = f"remark-{self._count}"
        self._remarks[item] = sentence
        self._play(item, sentence)
        self._brain.note_said(sentence.text)
        return True

    def _play(self, item: str, sentence: Sentence) -> None:
        assert self._playout is not None
        self._playout.play(item, sentence.pcm)
        self._playout.finish(item)

    @staticmethod
    async def _heard(event: asyncio.Event, sentence: Sentence) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(bytes_to_ms(len(sentence.pcm)) / 1000 + GRACE_S):
                await event.wait()

    def _conclude_remarks(self, *, heard_all: str | None = None) -> None:
        """Report what the caller heard of the remarks: of one all, or of each what was played."""
        assert self._playout is not None
        for item in [heard_all] if heard_all else list(self._remarks):
            sentence = self._remarks.pop(item)
            pcm, heard = sentence.pcm, sentence.text
            if heard_all is None:
                played_ms = self._playout.played_ms(item)
                heard = heard_part(sentence.text, played_ms, bytes_to_ms(len(pcm)))
                pcm = pcm[: int(played_ms * 16)]
            self._report(BotSaid(self._turn, sentence.text, heard, heard_all is None, pcm))

    def _on_fact(self, fact: Fact) -> None:
        if isinstance(fact, CallerSaid):
            self._turn = fact.turn
        elif isinstance(fact, BargeIn):
            self._conclude_remarks()
        self._report(fact)

    # --- Brain ---------------------------------------------------------------------------------------

    def prepare(self) -> None:
        self._brain.prepare()

    async def start(self, playout: Playout, report: Callable[[Fact], None]) -> None:
        self._playout, self._report = playout, report
        if self._opening.pcm:
            self._play(OPENING, self._opening)
            await self._heard(self._opened, self._opening)
            report(BotSaid(0, self._opening.text, self._opening.text, False, self._opening.pcm))
        if not self._leaving:
            self._started = True
            await self._brain.start(playout, self._on_fact)

    def push_audio(self, frame: bytes, now: float) -> None:
        if self._started and not self._leaving:
            self._brain.push_audio(frame, now)

    def push_sent(self, frame: bytes) -> None:
        self._brain.push_sent(frame)

    def push_mark(self, mark: PlayoutMark, now: float) -> None:
        if mark.item_id == GOODBYE:
            if isinstance(mark, ItemFinished):
                self._over.set()
        elif mark.item_id == OPENING:
            if isinstance(mark, ItemStarted):
                self._report(BotSpeechStarted(0, now))
            else:
                self._opened.set()
        elif mark.item_id in self._remarks:
            if isinstance(mark, ItemStarted):
                self._report(BotSpeechStarted(self._turn, now))
            else:
                self._conclude_remarks(heard_all=mark.item_id)
        elif not self._leaving:
            self._brain.push_mark(mark, now)

    def note_said(self, text: str) -> None:
        self._brain.note_said(text)

    async def close(self) -> None:
        self._over.set()
        self._opened.set()
        if self._playout is not None:
            self._conclude_remarks()
        await self._brain.close()
