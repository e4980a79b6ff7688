"""Both brains for people who bridge audio of their own: four synchronous calls, PCM16 mono at one rate. Shell.

A background thread runs the brain, its engines and a 20 ms clock; the two sides meet at two bounded buffers.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AsyncExitStack

from ari_app.audio.format import FRAME_BYTES, SAMPLE_BYTES, SILENT_FRAME, TELEPHONE_RATE_HZ, ms_to_bytes
from ari_app.audio.resample import StreamResampler
from ari_app.dialog.manner import PipelineSettings
from ari_app.dialog.pipeline import Pipeline
from ari_app.dialog.ports import BargeIn, Brain, EngineFailed, Fact
from ari_app.openai_api.chat import OpenAiChat
from ari_app.openai_api.client import StageSettings
from ari_app.openai_api.realtime import RealtimeBrain
from ari_app.openai_api.realtime_patience import Manners
from ari_app.openai_api.realtime_protocol import RealtimeSettings
from ari_app.openai_api.realtime_servers import RealtimeServers
from ari_app.openai_api.realtime_session import RealtimeClient
from ari_app.openai_api.stt import OpenAiSpeechToText
from ari_app.openai_api.tts import OPENAI_RATE_HZ, OpenAiTextToSpeech
from ari_app.rtp.pacer import FrameClock, Pacer

logger = logging.getLogger(__name__)

MAX_UNHEARD_MS = 5000
"""Caller audio waiting for a stalled loop; beyond, the oldest is dropped."""
MAX_UNREAD_FRAMES = 50
"""One second of bot audio waiting for `recv_pcm`; beyond, the oldest is dropped."""
HANGOVER_FRAMES = 5
"""Frames passed on after speech: the end of the cut-off ramp, and what the resampler still holds."""
PATIENCE_FRAMES = 5
"""So many frames without caller audio are jitter; from there on silence stands in, so that turns end."""
STOP_S = 10.0


class AudioBridge(ABC):
    """A brain in a background thread, behind `start`, `send_pcm`, `recv_pcm` and `stop`."""

    def __init__(self, rate_hz: int, on_fact: Callable[[Fact], None] | None) -> None:
        self._on_fact = on_fact
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._unheard = bytearray()
        self._unheard_limit_bytes = ms_to_bytes(MAX_UNHEARD_MS, rate_hz)
        self._unread: queue.Queue[bytes] = queue.Queue(MAX_UNREAD_FRAMES)
        self._hears = _Framer(rate_hz, TELEPHONE_RATE_HZ)
        self._speaks = _Framer(TELEPHONE_RATE_HZ, rate_hz)
        self._frames_without_caller = 0
        self._hangover = 0

    @abstractmethod
    async def _make_brain(self, stack: AsyncExitStack) -> Brain:
        """The brain, in the background thread; `stack` takes its connections down."""

    # --- any thread

    def start(self) -> None:
        """Begin the conversation; a greeting is spoken at once. A bridge lives once.

        Raises:
            RuntimeError: it was started before, or its thread could not set itself up.
        """
        if self._thread:
            raise RuntimeError("a bridge can be started once")
        self._thread = threading.Thread(target=self._run, name="ari_app-bridge", daemon=True)
        self._thread.start()
        self._ready.wait()
        if not self._thread.is_alive() and not self._stopping.is_set():
            raise RuntimeError("the bridge could not start; the log says why")

    def stop(self) -> None:
        """End all work; returns when the thread is gone; idempotent, and safe before `start`."""
        self._stopping.set()
        if self._thread:
            self._thread.join(STOP_S)

    def send_pcm(self, data: bytes) -> None:
        """Caller audio of any length, as it comes; never blocks."""
        with self._lock:
            self._unheard += data
            surplus = len(self._unheard) - self._unheard_limit_bytes
            if surplus > 0:
                del self._unheard[: surplus + surplus % SAMPLE_BYTES]

    def recv_pcm(self, timeout: float | None = None) -> bytes | None:
        """The next 20 ms of bot speech, at the pace of speech; None when none comes within `timeout` seconds."""
        try:
            return self._unread.get(timeout=timeout) if timeout else self._unread.get_nowait()
        except queue.Empty:
            return None

    # --- the background thread

    def _run(self) -> None:
        try:
            asyncio.run(self._converse())
        except Exception:
            logger.exception("the bridge ended by a fault")
        finally:
            self._ready.set()

    async def _converse(self) -> None:
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            brain = await self._make_brain(stack)
            stack.push_async_callback(brain.close)
            pacer = Pacer()
            await brain.start(pacer, self._report)
            self._ready.set()
            clock = FrameClock(loop.time())
            while not self._stopping.is_set():
                await asyncio.sleep(max(0.0, clock.next_at - loop.time()))
                due, _ = clock.due(loop.time())
                for _ in range(due):
                    self._tick(brain, pacer, loop.time())

    def _tick(self, brain: Brain, pacer: Pacer, now: float) -> None:
        """20 ms of the call in both directions."""
        for frame in self._take_caller_frames():
            brain.push_audio(frame, now)
        self._hangover = HANGOVER_FRAMES if pacer.speaking else self._hangover - 1
        frame = pacer.next_frame()
        brain.push_sent(frame)
        for mark in pacer.take_marks():
            brain.push_mark(mark, now)
        if self._hangover >= 0:
            for piece in self._speaks.push(frame):
                self._offer(piece)

    def _take_caller_frames(self) -> list[bytes]:
        with self._lock:
            whole = len(self._unheard) // SAMPLE_BYTES * SAMPLE_BYTES
            pcm = bytes(self._unheard[:whole])
            del self._unheard[:whole]
        if pcm:
            self._frames_without_caller = 0
            return self._hears.push(pcm)
        self._frames_without_caller += 1
        return [SILENT_FRAME] if self._frames_without_caller > PATIENCE_FRAMES else []

    def _offer(self, piece: bytes) -> None:
        while True:
            try:
                return self._unread.put_nowait(piece)
            except queue.Full:
                self.recv_pcm()

    def _report(self, fact: Fact) -> None:
        if isinstance(fact, BargeIn):
            while self.recv_pcm():
                pass  # what the caller spoke over is not to be heard any more
        elif isinstance(fact, EngineFailed):
            logger.warning("turn %d: %s failed: %s", fact.turn, fact.stage, fact.message)
        if self._on_fact:
            self._on_fact(fact)


class WhisperAssistantBridge(AudioBridge):
    """Speech-to-text, chat and text-to-speech for audio of your own.

    Args:
        stt, chat, tts: where the engine stages are reached.
        voice: the voice of the bot.
        settings: how it converses.
        rate_hz: sample rate of `send_pcm` and `recv_pcm`.
        tts_rate_hz: rate of raw PCM from the text-to-speech server where it does not say.
        on_fact: told everything that happens, in the background thread; it must not block.
    """

    def __init__(
        self,
        stt: StageSettings,
        chat: StageSettings,
        tts: StageSettings,
        *,
        voice: str,
        settings: PipelineSettings | None = None,
        rate_hz: int = TELEPHONE_RATE_HZ,
        tts_rate_hz: int = OPENAI_RATE_HZ,
        on_fact: Callable[[Fact], None] | None = None,
    ) -> None:
        super().__init__(rate_hz, on_fact)
        self._stages = (stt, chat, tts)
        self._voice = voice
        self._settings = settings or PipelineSettings()
        self._tts_rate_hz = tts_rate_hz

    async def _make_brain(self, stack: AsyncExitStack) -> Brain:
        stt, chat, tts = self._stages
        engines = (
            OpenAiSpeechToText(stt),
            OpenAiChat(chat),
            OpenAiTextToSpeech(tts, voice=self._voice, rate_hz=self._tts_rate_hz),
        )
        for engine in engines:
            stack.push_async_callback(engine.close)
        return Pipeline(*engines, self._settings)


class OpenAIRealtimeBridge(AudioBridge):
    """A Realtime session for audio of your own.

    Args:
        base_url, api_key: where the Realtime API is reached.
        settings: the session.
        manners: how it converses: greeting, local sentences.
        rate_hz: sample rate of `send_pcm` and `recv_pcm`.
        on_fact: told everything that happens, in the background thread; it must not block.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        settings: RealtimeSettings,
        *,
        manners: Manners | None = None,
        rate_hz: int = TELEPHONE_RATE_HZ,
        on_fact: Callable[[Fact], None] | None = None,
    ) -> None:
        super().__init__(rate_hz, on_fact)
        self._client = RealtimeClient(base_url, api_key, settings)
        self._manners = manners or Manners()

    async def _make_brain(self, stack: AsyncExitStack) -> Brain:
        await stack.enter_async_context(self._client)
        return RealtimeBrain(RealtimeServers(self._client), self._manners)


class _Framer:
    """PCM of any length and one rate to whole 20 ms frames of another."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._resampler = StreamResampler(from_hz, to_hz)
        self._frame_bytes = FRAME_BYTES * to_hz // TELEPHONE_RATE_HZ
        self._pending = b""

    def push(self, pcm: bytes) -> list[bytes]:
        self._pending += self._resampler.push(pcm)
        end = len(self._pending) // self._frame_bytes * self._frame_bytes
        whole, self._pending = self._pending[:end], self._pending[end:]
        return [whole[i : i + self._frame_bytes] for i in range(0, end, self._frame_bytes)]
