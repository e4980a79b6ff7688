"""The brain around a brain: what the application itself says, first, in between and last, and when. Shell."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from ari_app.audio.format import bytes_to_ms
from ari_app.dialog.history import heard_part
from ari_app.dialog.idle import Due, Limits, Watch
from ari_app.dialog.phrasebook import NO_PHRASES, Phrasebook, Sentence
from ari_app.dialog.ports import (
    BargeIn,
    BotSaid,
    BotSpeechStarted,
    Brain,
    CallerSaid,
    Concluded,
    Fact,
    ItemStarted,
    Playout,
    PlayoutMark,
)

logger = logging.getLogger(__name__)

OPENING = "announcement"
GOODBYE = "goodbye"
GRACE_S = 2.0
"""Playout reaches the end of a sentence that waits for nothing within its length and this."""
REASONS = {
    Due.PARTING: "nobody spoke for a long time",
    Due.LIMIT: "the longest time for a call is over (MAX_CALL_SECONDS)",
}


@dataclass(frozen=True, slots=True)
class Script:
    """What all calls of the process have said to them."""

    phrases: Phrasebook = NO_PHRASES
    opening: str = ""
    """What callers hear before all else, whole: nothing they say meanwhile is heard."""
    limits: Limits = Limits()


class Announcer:
    """Implements `Brain` by another one."""

    def __init__(self, brain: Brain, script: Script) -> None:
        self._brain = brain
        self._script = script
        farewell = script.phrases.get("limit")
        self._watch = Watch(script.limits, farewell_ms=bytes_to_ms(len(farewell.pcm)))
        self._language: str | None = None
        """The caller's, where the engine names it."""
        self._playout: Playout | None = None
        self._report: Callable[[Fact], None] = lambda fact: None
        self._started = self._leaving = self._held = False
        self._opened = asyncio.Event()
        self._over = asyncio.Event()
        """Everything is said, or nobody is left to hear it."""
        self._parting: asyncio.Task[None] | None = None
        self._turn = 0
        self._remarks: dict[str, Sentence] = {}
        """What was said in between or last and is not over, by playout item."""
        self._begun_at: dict[str, float] = {}
        """When what the application says was first heard, by playout item."""
        self._count = 0

    async def say_goodbye(self, purpose: str = "goodbye") -> None:
        """End the conversation and say the last words; returns when they were heard. Nothing without a caller."""
        last_words = self._script.phrases.get(purpose, self._language)
        if self._playout is None or self._over.is_set() or self._leaving or not last_words.pcm:
            return
        self._leaving = True
        await self._brain.close()
        self._playout.clear()
        self._conclude_remarks()
        self._remarks[GOODBYE] = last_words
        self._play(GOODBYE, last_words)
        await self._heard(self._over, last_words)

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

    @property
    def waiting(self) -> int:
        """Sentences that are not said to their end."""
        return len(self._remarks)

    def hold(self, held: bool) -> None:
        """The far end holds the call, or takes it back: silence is as it should be meanwhile."""
        self._held = held

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
            begun_at = self._begun_at.pop(item, None)
            self._report(BotSaid(self._turn, sentence.text, heard, heard_all is None, pcm, begun_at))

    def _on_fact(self, fact: Fact) -> None:
        if isinstance(fact, CallerSaid):
            self._turn = fact.turn
            self._language = fact.language
        elif isinstance(fact, BargeIn):
            self._conclude_remarks()
        self._watch.push_fact(fact)
        self._report(fact)

    def _attend(self, due: Due) -> None:
        """Say what is due now."""
        purpose = due.name.lower()
        if due not in REASONS:
            if (sentence := self._script.phrases.get(purpose, self._language)).pcm:
                self.say(sentence)
        elif self._parting is None:
            self._parting = asyncio.create_task(self._part(purpose, REASONS[due]), name="parting")

    async def _part(self, purpose: str, reason: str) -> None:
        try:
            await self.say_goodbye(purpose)
        except Exception:  # a brain that does not close must not keep the line open
            logger.exception("the last words failed")
        self._report(Concluded(reason))

    # --- Brain ---------------------------------------------------------------------------------------

    def prepare(self) -> None:
        self._brain.prepare()

    async def start(self, playout: Playout, report: Callable[[Fact], None]) -> None:
        self._playout, self._report = playout, report
        loop = asyncio.get_running_loop()
        called_at = loop.time()
        opening = self._script.phrases.sentence(self._script.opening)
        if opening.pcm:
            self._play(OPENING, opening)
            await self._heard(self._opened, opening)
            begun_at = self._begun_at.pop(OPENING, None)
            report(BotSaid(0, opening.text, opening.text, False, opening.pcm, begun_at))
        if not self._leaving:
            self._started = True
            await self._brain.start(playout, self._on_fact)
            self._watch.begin(loop.time() - called_at)

    def push_audio(self, frame: bytes, now: float) -> None:
        if not self._started or self._leaving:
            return
        self._brain.push_audio(frame, now)
        assert self._playout is not None
        if due := self._watch.push_frame(waiting=not (self._held or self._playout.speaking)):
            self._attend(due)

    def push_sent(self, frame: bytes) -> None:
        self._brain.push_sent(frame)

    def push_mark(self, mark: PlayoutMark, now: float) -> None:
        if mark.item_id == OPENING:
            if isinstance(mark, ItemStarted):
                self._begun_at[OPENING] = now
                self._report(BotSpeechStarted(0, now))
            else:
                self._opened.set()
        elif mark.item_id in self._remarks:
            if isinstance(mark, ItemStarted):
                self._begun_at[mark.item_id] = now
                self._report(BotSpeechStarted(self._turn, now))
            else:
                self._conclude_remarks(heard_all=mark.item_id)
                if mark.item_id == GOODBYE:
                    self._over.set()
        elif not self._leaving:
            self._brain.push_mark(mark, now)

    def note_said(self, text: str) -> None:
        self._brain.note_said(text)

    async def close(self) -> None:
        self._over.set()
        self._opened.set()
        if self._playout is not None:
            self._conclude_remarks()
        if self._parting is not None:
            self._parting.cancel()
            await asyncio.gather(self._parting, return_exceptions=True)
        await self._brain.close()
