"""A call through the pipeline in memory: scripted engines, real turn-taking, the caller's time stepped."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from ari_app.audio.format import SILENT_FRAME
from ari_app.dialog.manner import PipelineSettings
from ari_app.dialog.pipeline import Pipeline
from ari_app.dialog.ports import Fact
from tests.fakes.brain_ports import ScriptedChat, ScriptedStt, ScriptedTts, SteppedPlayout, local_sentence
from tests.fakes.phrases import phrasebook

F = TypeVar("F", bound=Fact)

SETTINGS = PipelineSettings(
    system_message="Be brief.", phrases=phrasebook(apology=local_sentence(400), regret=local_sentence(400))
)


class Call:
    """A caller on the line: pushes frames, steps playout, collects facts."""

    def __init__(
        self,
        stt: ScriptedStt | None = None,
        chat: ScriptedChat | None = None,
        tts: ScriptedTts | None = None,
        settings: PipelineSettings = SETTINGS,
    ) -> None:
        self.stt = stt or ScriptedStt()
        self.chat = chat or ScriptedChat()
        self.tts = tts or ScriptedTts()
        self.pipeline = Pipeline(self.stt, self.chat, self.tts, settings)
        self.playout = SteppedPlayout()
        self.facts: list[Fact] = []
        self.now = 100.0
        self._noise = random.Random(7)

    async def frame(self, loud: bool) -> None:
        """20 ms of the call in both directions."""
        self.now += 0.02
        frame = SILENT_FRAME
        if loud:
            frame = struct.pack("<160h", *(self._noise.randint(-9000, 9000) for _ in range(160)))
        self.pipeline.push_audio(frame, self.now)
        for mark in self.playout.step():
            self.pipeline.push_mark(mark, self.now)
        await settle()

    async def silence(self, ms: int) -> None:
        for _ in range(ms // 20):
            await self.frame(False)

    async def speak(self, ms: int = 800) -> None:
        for _ in range(ms // 20):
            await self.frame(True)

    async def say(self, ms: int = 800) -> None:
        """Speech and the silence that ends the turn."""
        await self.speak(ms)
        await self.silence(1200)

    async def until(self, done: Callable[[], object], limit_ms: int = 20_000) -> None:
        for _ in range(limit_ms // 20):
            if done():
                return
            await self.frame(False)
        raise AssertionError(f"did not come: {self.facts}")

    def all(self, kind: type[F]) -> list[F]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def kinds(self) -> list[type[Fact]]:
        return [type(fact) for fact in self.facts]


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


@asynccontextmanager
async def on_the_line(call: Call) -> AsyncIterator[Call]:
    before = asyncio.all_tasks()
    await call.pipeline.start(call.playout, call.facts.append)
    try:
        yield call
    finally:
        await call.pipeline.close()
        await call.pipeline.close()
    assert asyncio.all_tasks() == before
    assert call.chat.open == call.tts.open == 0, "an engine's stream was left open"
