"""Scripted engines and a stepped playout: everything a pipeline touches, in memory and strict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from ari_app.audio.format import FRAME_BYTES, ms_to_bytes
from ari_app.dialog.ports import (
    Message,
    PcmChunk,
    PlayoutMark,
    Transcript,
)
from ari_app.rtp.pacer import Pacer

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


class SteppedPlayout:
    """The real pacer, asked for a frame when the test says that 20 ms have passed; strict about its use."""

    def __init__(self) -> None:
        self._pacer = Pacer()
        self._open: set[str] = set()
        self._given: list[str] = []
        self.sent: list[str | None] = []
        """Which item each frame that left belonged to."""
        self.given_bytes = 0

    def play(self, item_id: str, pcm: bytes) -> None:
        assert pcm and len(pcm) % 2 == 0
        self.given_bytes += len(pcm)
        if item_id not in self._given:
            self._given.append(item_id)
            self._open.add(item_id)
        assert item_id in self._open, f"{item_id} is over"
        self._pacer.play(item_id, pcm)

    def finish(self, item_id: str) -> None:
        assert item_id in self._open, f"{item_id} is over"
        self._open.remove(item_id)
        self._pacer.finish(item_id)

    def clear(self) -> None:
        self._open.clear()
        self._pacer.clear()

    def pause(self) -> None:
        self._pacer.pause()

    def resume(self) -> None:
        self._pacer.resume()

    def played_ms(self, item_id: str) -> float:
        return self._pacer.played_ms(item_id)

    @property
    def speaking(self) -> bool:
        return self._pacer.speaking

    def step(self) -> list[PlayoutMark]:
        """Send one frame; return what happened."""
        before = [self.played_ms(item_id) for item_id in self._given]
        assert len(self._pacer.next_frame()) == FRAME_BYTES
        moved = [i for i, ms in zip(self._given, before, strict=True) if self.played_ms(i) > ms]
        assert len(moved) <= 1
        self.sent.append(moved[0] if moved else None)
        return self._pacer.take_marks()


def local_sentence(ms: int) -> bytes:
    """PCM that stands for a pre-rendered sentence."""
    return b"\x00\x08" * (ms_to_bytes(ms) // 2)
