"""`GET /v1/realtime`: conversations over WebSocket, made of the packaged models. Shell of `realtime_session`."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any

from aiohttp import WSMsgType, web

from ari_app.audio.format import TELEPHONE_RATE_HZ
from ari_app.audio.resample import StreamResampler, resample
from ari_app.offline import voice
from ari_app.offline.realtime_audio import chunks, duration_ms, rate_hz
from ari_app.offline.realtime_config import Event, Invalid
from ari_app.offline.realtime_hearing import Transcribe
from ari_app.offline.realtime_responses import Speak, Stop
from ari_app.offline.realtime_session import RealtimeSession, Work
from ari_app.offline.whisper import RATE_HZ as WHISPER_RATE_HZ
from ari_app.offline.whisper import Heard, Whisper

logger = logging.getLogger(__name__)

MAX_SESSIONS = 32
MAX_EVENT_BYTES = 16 * 2**20
MAX_UNSENT = 4096
"""Events. A client that leaves so many unread is taken for gone."""
MAX_HEARING = 8
"""Turns of one session in speech-to-text; with more the socket is not read."""
LIFETIME_S = 3600
HEARTBEAT_S = 20.0
CLOSE_S = 2.0
AHEAD_MS = 2000
"""So much of a response's audio is sent as soon as it is made, the rest at `PACE` times its duration: quick enough
for any player, and not yet made when the caller interrupts."""
PACE = 5.0
BETA_DISABLED = 4000
GOING_AWAY = 1001


class RealtimeServer:
    """All conversations of one process.

    Args:
        ears: where Whisper runs.
        mouth: where the voice runs, one call at a time.
        languages: what Whisper chooses from when the client does not say.
    """

    def __init__(
        self,
        whisper: Whisper,
        ears: Executor,
        mouth: Executor,
        languages: Sequence[str],
        *,
        lifetime_s: float = LIFETIME_S,
    ) -> None:
        self.whisper = whisper
        self.ears = ears
        self.mouth = mouth
        self.languages = languages
        self.lifetime_s = lifetime_s
        self._sockets: set[web.WebSocketResponse] = set()

    @property
    def sessions(self) -> int:
        """How many run."""
        return len(self._sockets)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One conversation, from handshake to close."""
        socket = web.WebSocketResponse(
            max_msg_size=MAX_EVENT_BYTES,
            heartbeat=HEARTBEAT_S,
            timeout=CLOSE_S,
            compress=False,
            protocols=("realtime",),  # what a browser sends
        )
        self._sockets.add(socket)
        try:
            await socket.prepare(request)
            if request.headers.get("OpenAI-Beta", "").startswith("realtime"):
                await _refuse_beta(socket)
            else:
                await _Conversation(self, socket).run(request.query.get("model", ""))
        finally:
            self._sockets.discard(socket)
        return socket

    async def close(self, application: web.Application) -> None:
        """Hang up on everybody."""
        await asyncio.gather(*(socket.close(code=GOING_AWAY) for socket in self._sockets))


async def _refuse_beta(socket: web.WebSocketResponse) -> None:
    message = "The Realtime beta is over: connect without the header OpenAI-Beta and use the GA events."
    error = {"type": "invalid_request_error", "code": "beta_api_shape_disabled", "message": message}
    await socket.send_json({"type": "error", "event_id": "event_1", "error": error})
    await socket.close(code=BETA_DISABLED)


class _Conversation:
    """One socket, its session, and the tasks that listen and speak for it."""

    def __init__(self, server: RealtimeServer, socket: web.WebSocketResponse) -> None:
        self._server = server
        self._socket = socket
        self._unsent: asyncio.Queue[str] = asyncio.Queue(MAX_UNSENT)
        self._overflowed = asyncio.Event()
        self._hearing: set[asyncio.Task[None]] = set()
        self._speaking: dict[str, asyncio.Task[None]] = {}
        self._session: RealtimeSession

    async def run(self, model: str) -> None:
        """Returns when the connection has ended; no task stays."""
        writer = asyncio.create_task(self._write(), name="realtime-writer")
        try:
            self._session = RealtimeSession(
                secrets.token_hex(6),
                model,
                int(time.time() + self._server.lifetime_s),
                self._send,
                self._work,
                self._server.whisper.knows,
            )
            try:
                async with asyncio.timeout(self._server.lifetime_s):
                    await self._read()
            except TimeoutError:
                await self._expire()
        finally:
            tasks = [writer, *self._hearing, *self._speaking.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is WSMsgType.TEXT:
                self._receive(message.data)
            elif message.type is WSMsgType.BINARY:
                self._session.refuse(Invalid("invalid_json", "Events are JSON in text frames."))
            if self._overflowed.is_set():
                logger.warning("a realtime client does not read what it is sent")
                break
            while len(self._hearing) >= MAX_HEARING:
                await asyncio.wait(self._hearing, return_when=asyncio.FIRST_COMPLETED)

    def _receive(self, text: str) -> None:
        try:
            event = json.loads(text)
        except (ValueError, RecursionError):
            self._session.refuse(Invalid("invalid_json", "The event is not JSON."))
            return
        try:
            self._session.receive(event)
        except RecursionError:  # it can be read, and not be echoed
            self._session.refuse(Invalid("invalid_json", "The event is nested too deeply."))

    async def _expire(self) -> None:
        message = f"Your session hit the maximum duration of {self._server.lifetime_s / 60:g} minutes."
        self._session.refuse(Invalid("session_expired", message))
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._unsent.join()
        await self._socket.close(code=GOING_AWAY, message=message.encode())

    # --- sending

    def _send(self, event: Event) -> None:
        try:
            self._unsent.put_nowait(json.dumps(event))
        except asyncio.QueueFull:
            self._overflowed.set()

    async def _write(self) -> None:
        with suppress(ConnectionError):  # the reader sees the end of the connection
            while True:
                await self._socket.send_str(await self._unsent.get())
                self._unsent.task_done()

    # --- the session's work

    def _work(self, work: Work) -> None:
        match work:
            case Transcribe():
                task = self._start(self._hear(work), "realtime-hear")
                self._hearing.add(task)
                task.add_done_callback(self._hearing.discard)
            case Speak(response_id=response_id):
                task = self._start(self._speak(work), "realtime-speak")
                self._speaking[response_id] = task
                task.add_done_callback(lambda _: self._speaking.pop(response_id, None))
            case Stop(response_id=response_id):
                if response_id in self._speaking:
                    self._speaking[response_id].cancel()

    @staticmethod
    def _start(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.create_task(work, name=name)

    async def _hear(self, work: Transcribe) -> None:
        try:
            heard = await _in(self._server.ears, self._heard, work)
        except Exception:
            logger.exception("speech-to-text failed")
            self._session.not_understood(work.item_id, "Speech-to-text failed.")
        else:
            self._session.understood(work.item_id, heard.text, heard.language)

    def _heard(self, work: Transcribe) -> Heard:
        pcm = resample(work.pcm, TELEPHONE_RATE_HZ, WHISPER_RATE_HZ)
        return self._server.whisper.transcribe(pcm, work.languages or self._server.languages)

    async def _speak(self, work: Speak) -> None:
        try:
            await self._say(work)
        except Exception:
            logger.exception("text-to-speech failed")
            self._session.failed(work.response_id, "Text-to-speech failed.")
        else:
            self._session.finished(work.response_id)

    async def _say(self, work: Speak) -> None:
        name = voice.pick_voice(work.voice, work.text)
        resampler = StreamResampler(voice.RATE_HZ, rate_hz(work.format))
        started_at = asyncio.get_running_loop().time()
        sent_ms = 0.0
        for piece in voice.pieces(work.text):
            pcm = await _in(self._server.mouth, _spoken, piece, name, work.speed, resampler)
            for words, audio in chunks(piece + " ", pcm, work.format):
                self._session.say(work.response_id, words, audio)
                sent_ms += duration_ms(audio, work.format)
                due_at = started_at + (sent_ms - AHEAD_MS) / 1000 / PACE
                await asyncio.sleep(max(0.0, due_at - asyncio.get_running_loop().time()))


def _spoken(piece: str, name: str, speed: float, resampler: StreamResampler) -> bytes:
    """One piece with the pause behind it, which also drives it out of the resampler."""
    pcm = voice.speak(piece, name, speed)
    return resampler.push(pcm + voice.PAUSE) if pcm else b""


async def _in(pool: Executor, work: Callable[..., Any], *arguments: object) -> Any:
    return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)
