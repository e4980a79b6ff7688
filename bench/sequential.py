"""The benchmark's baseline: the same application with the simplest brain there is.

    python -m bench.sequential        as `python -m ari_app serve`, settings from the environment

It waits for the silence, then has the turn transcribed, then waits for the whole answer, then for all of its speech.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

import uvloop

from ari_app.app import App
from ari_app.audio.format import TELEPHONE_RATE_HZ
from ari_app.audio.resample import resample
from ari_app.audio.vad import EnergyVad, VadState
from ari_app.brains import Brains
from ari_app.config import Config, load
from ari_app.dialog.ports import Fact, Message, Playout, PlayoutMark
from ari_app.dialog.turns import TurnEnded, TurnSettings, TurnTracker
from ari_app.openai_api.chat import OpenAiChat
from ari_app.openai_api.client import StageSettings
from ari_app.openai_api.stt import OpenAiSpeechToText
from ari_app.openai_api.tts import OpenAiTextToSpeech


class Sequential:
    """Implements `Brain`; one turn at a time, without interruption."""

    def __init__(
        self, stt: OpenAiSpeechToText, chat: OpenAiChat, tts: OpenAiTextToSpeech, silence_duration_ms: int
    ) -> None:
        self._stt, self._chat, self._tts = stt, chat, tts
        self._vad = EnergyVad()
        self._tracker = TurnTracker(TurnSettings(silence_duration_ms=silence_duration_ms))
        self._turns = 0
        self._answering: asyncio.Task[None] | None = None
        self._playout: Playout

    def prepare(self) -> None:
        """Nothing is opened ahead."""

    async def start(self, playout: Playout, report: Callable[[Fact], None]) -> None:
        self._playout = playout

    def push_audio(self, frame: bytes, now: float) -> None:
        voiced = self._vad.push(frame, now) in (VadState.STARTING, VadState.SPEAKING)
        event = self._tracker.push(frame, voiced, now)
        if isinstance(event, TurnEnded) and (self._answering is None or self._answering.done()):
            self._turns += 1
            self._answering = asyncio.create_task(self._answer(event.pcm, f"answer-{self._turns}"))

    def push_sent(self, frame: bytes) -> None:
        """It has no use for it."""

    def push_mark(self, mark: PlayoutMark, now: float) -> None:
        """What was heard does not matter."""

    def note_said(self, text: str) -> None:
        """It remembers nothing."""

    async def close(self) -> None:
        if self._answering:
            self._answering.cancel()
            await asyncio.gather(self._answering, return_exceptions=True)

    async def _answer(self, pcm: bytes, item_id: str) -> None:
        heard = await self._stt.transcribe(pcm, TELEPHONE_RATE_HZ)
        text = "".join([delta async for delta in self._chat.reply([Message("user", heard.text)])])
        chunks = [chunk async for chunk in self._tts.speak(text)]
        spoken = b"".join(chunk.pcm for chunk in chunks)
        self._playout.play(item_id, resample(spoken, chunks[0].rate_hz, TELEPHONE_RATE_HZ))
        self._playout.finish(item_id)


async def build(config: Config, stack: AsyncExitStack) -> Brains:
    """The engines of the configuration, each with the application's own client."""
    stages = {
        name: StageSettings(stage.base_url, stage.model, stage.api_key)
        for name, stage in config.stages("").items()
    }
    stt, chat = OpenAiSpeechToText(stages["stt"]), OpenAiChat(stages["chat"], max_tokens=300)
    tts = OpenAiTextToSpeech(stages["tts"], voice=config.openai_tts_voice, rate_hz=config.openai_tts_rate_hz)
    for stage in (stt, chat, tts):
        stack.push_async_callback(stage.close)
    return Brains(lambda: Sequential(stt, chat, tts, config.silence_duration_ms))


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    app = App(load({}, os.environ, {}), command="serve", build=build)
    await app.serve(ready=lambda: print("ready", flush=True), stop=stop)


if __name__ == "__main__":
    uvloop.run(main())
