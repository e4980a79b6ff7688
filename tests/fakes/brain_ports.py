"""Scripted engines and a stepped playout: everything a pipeline touches, in memory and strict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from ari_app.audio.format import FRAME_BYTES, FRAME_MS, ms_to_bytes
from ari_app.dialog.ports import (
    ItemFinished,
    ItemStarted,
    Message,
    PcmChunk,
    PlayoutMark,
    Transcript,
)

TTS_RATE_HZ = 24_000
SPOKEN_MS_PER_CHAR = 50


class Forever:
    """A scripted step that never comes."""


Step = str | Exception | Forever


async def _play(step: Step) -> str:
    if isinstance(step, Exception):
        raise step
    if isinstance(step, Forever):
        await asyncio.Event().wait()
        raise AssertionError("unreachable")
    return step


class ScriptedStt:
    """Each turn takes the next step; `gate` holds all answers back until it is set."""

    def __init__(self, *script: Step) -> None:
        self.script = list(script)
        self.heard: list[bytes] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def transcribe(self, pcm: bytes, rate_hz: int) -> Transcript:
        assert rate_hz == 8000 and len(pcm) % 2 == 0
        self.heard.append(pcm)
        step = self.script.pop(0)
        await self.gate.wait()
        return Transcript(await _play(step), "en")


class ScriptedChat:
    """Each reply takes the next list of deltas."""

    def __init__(self, *script: Sequence[Step]) -> None:
        self.script = list(script)
        self.asked: list[list[Message]] = []
        self.open = 0

    async def reply(self, messages: Sequence[Message]) -> AsyncGenerator[str, None]:
        self.asked.append(list(messages))
        self.open += 1
        try:
            for step in self.script.pop(0):
                yield await _play(step)
                await asyncio.sleep(0)
        finally:
            self.open -= 1


class ScriptedTts:
    """Speaks any text, `SPOKEN_MS_PER_CHAR` for each character, in odd pieces; `faults` by text."""

    def __init__(self, faults: dict[str, Step] | None = None) -> None:
        self.faults = faults or {}
        self.spoken: list[str] = []
        self.open = 0

    async def speak(self, text: str) -> AsyncGenerator[PcmChunk, None]:
        self.spoken.append(text)
        self.open += 1
        try:
            pcm = b"\x00\x10" * (len(text) * SPOKEN_MS_PER_CHAR * TTS_RATE_HZ // 1000)
            half = len(pcm) // 4 * 2
            yield PcmChunk(pcm[:half], TTS_RATE_HZ)
            await asyncio.sleep(0)
            if text in self.faults:
                await _play(self.faults[text])
                return
            yield PcmChunk(pcm[half:], TTS_RATE_HZ)
        finally:
            self.open -= 1


@dataclass
class _Item:
    pending: bytearray = field(default_factory=bytearray)
    frames: int = 0
    done: bool = False


class SteppedPlayout:
    """Implements `Playout`; every `step` is 20 ms of the caller's time."""

    def __init__(self) -> None:
        self._items: dict[str, _Item] = {}
        self._queue: list[str] = []
        self.sent: list[str | None] = []
        """Which item each frame that left belonged to."""

    def play(self, item_id: str, pcm: bytes) -> None:
        assert pcm and len(pcm) % 2 == 0
        if item_id not in self._items:
            self._items[item_id] = _Item()
            self._queue.append(item_id)
        assert item_id in self._queue and not self._items[item_id].done, f"{item_id} is over"
        self._items[item_id].pending += pcm

    def finish(self, item_id: str) -> None:
        item = self._items[item_id]
        assert not item.done, f"{item_id} finished twice"
        item.done = True
        item.pending += bytes(-len(item.pending) % FRAME_BYTES)

    def clear(self) -> None:
        for item_id in self._queue:
            self._items[item_id].done = True
            self._items[item_id].pending.clear()
        self._queue.clear()

    def played_ms(self, item_id: str) -> float:
        return self._items[item_id].frames * FRAME_MS if item_id in self._items else 0.0

    @property
    def speaking(self) -> bool:
        return bool(self._queue)

    def step(self) -> list[PlayoutMark]:
        """Send one frame; return what happened."""
        if not self._queue or len(self._items[self._queue[0]].pending) < FRAME_BYTES:
            self.sent.append(None)
            return []
        item_id = self._queue[0]
        item = self._items[item_id]
        del item.pending[:FRAME_BYTES]
        item.frames += 1
        self.sent.append(item_id)
        marks: list[PlayoutMark] = [ItemStarted(item_id)] if item.frames == 1 else []
        if item.done and not item.pending:
            self._queue.pop(0)
            marks.append(ItemFinished(item_id, self.played_ms(item_id)))
        return marks


def local_sentence(ms: int) -> bytes:
    """PCM that stands for a pre-rendered sentence."""
    return b"\x00\x08" * (ms_to_bytes(ms) // 2)
