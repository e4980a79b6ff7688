"""The engine's Realtime side: turns found by energy, answers of tones, every delay declared. See `bench.engine`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

from ari_app.audio.codec import pcm16_to_ulaw, ulaw_to_pcm16
from ari_app.audio.format import FRAME_BYTES, bytes_to_ms
from ari_app.audio.resample import StreamResampler
from ari_app.audio.vad import EnergyVad, VadState
from ari_app.dialog.turns import TurnEnded, TurnSettings, TurnStarted, TurnTracker

PCM_RATE_HZ, PHONE_RATE_HZ = 24_000, 8000
LIFETIME_S = 3600
CHUNK_MS = 100

Event = dict[str, Any]


class Conversation:
    """One socket.

    Args:
        delay_s: from the end of a turn to the first audio of its answer.
        speech_per_s: seconds of speech that a second brings.
        answer: text of the n-th answer.
        spoken: 24 kHz audio of a text, in pieces of `CHUNK_MS`.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        *,
        delay_s: float,
        speech_per_s: float,
        answer: Callable[[int], str],
        spoken: Callable[[str], list[bytes]],
    ) -> None:
        self._socket = socket
        self._delay_s = delay_s
        self._speech_per_s = speech_per_s
        self._answer = answer
        self._spoken = spoken
        self._session: Event = {}
        self._hears = StreamResampler(PCM_RATE_HZ, PHONE_RATE_HZ)
        self._pcm = bytearray()
        self._position_bytes = 0
        self._vad = EnergyVad()
        self._tracker = TurnTracker(TurnSettings())
        self._numbers = {"item": 0, "response": 0, "event": 0}
        self._item_id = ""
        self._responding: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        """All that speak, also those that were cancelled and have not ended."""
        self._over = False
        """Responses outside the conversation: texts that are read aloud."""

    async def run(self) -> None:
        """From handshake to close."""
        await self._send("session.created", session={"expires_at": int(time.time()) + LIFETIME_S})
        try:
            async for message in self._socket:
                if message.type is WSMsgType.TEXT:
                    await self._take(json.loads(message.data))
        finally:
            self._over = True
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, event: Event) -> None:
        match event["type"]:
            case "session.update":
                self._session |= event["session"]
                if "audio" in event["session"]:
                    detection = self._session["audio"].get("input", {}).get("turn_detection") or {}
                    silence_ms = detection.get("silence_duration_ms", 500)
                    self._tracker = TurnTracker(TurnSettings(silence_duration_ms=silence_ms))
                session = {**self._session, "expires_at": int(time.time()) + LIFETIME_S}
                await self._send("session.updated", session=session)
            case "input_audio_buffer.append":
                await self._hear(base64.b64decode(event["audio"]))
            case "response.create" if event.get("response", {}).get("conversation") == "none":
                response = event["response"]
                self._speaking(response["input"][0]["content"][0]["text"], response.get("metadata"))
            case "response.create":
                self._respond()
            case "response.cancel":
                self._cancel()

    @property
    def _ulaw(self) -> bool:
        return bool(self._session["audio"]["output"]["format"]["type"] == "audio/pcmu")

    async def _hear(self, audio: bytes) -> None:
        self._pcm += ulaw_to_pcm16(audio) if self._ulaw else self._hears.push(audio)
        while len(self._pcm) >= FRAME_BYTES:
            frame = bytes(self._pcm[:FRAME_BYTES])
            del self._pcm[:FRAME_BYTES]
            self._position_bytes += FRAME_BYTES
            now = bytes_to_ms(self._position_bytes) / 1000
            voiced = self._vad.push(frame, now) in (VadState.STARTING, VadState.SPEAKING)
            match self._tracker.push(frame, voiced, now):
                case TurnStarted(onset_at=onset_at):
                    self._cancel()
                    self._item_id = self._new("item")
                    started = {"item_id": self._item_id, "audio_start_ms": int(onset_at * 1000)}
                    await self._send("input_audio_buffer.speech_started", **started)
                case TurnEnded():
                    stopped = {"item_id": self._item_id, "audio_end_ms": int(now * 1000)}
                    await self._send("input_audio_buffer.speech_stopped", **stopped)
                    await self._send("input_audio_buffer.committed", item_id=self._item_id)
                    transcribed = "conversation.item.input_audio_transcription.completed"
                    await self._send(transcribed, item_id=self._item_id, transcript="A sentence.")
                    self._respond()

    def _respond(self) -> None:
        self._cancel()
        self._responding = self._speaking(None)

    def _cancel(self) -> None:
        if self._responding:
            self._responding.cancel()

    def _speaking(self, text: str | None, metadata: Event | None = None) -> asyncio.Task[None]:
        """Say the text, or without one the next answer."""
        task = asyncio.create_task(self._speak(self._new("response"), self._new("item"), text, metadata))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _speak(self, response_id: str, item_id: str, text: str | None, metadata: Event | None) -> None:
        status = "cancelled"
        place = {"response_id": response_id, "item_id": item_id, "output_index": 0, "content_index": 0}
        try:
            await self._send(
                "response.created",
                response={"id": response_id, "status": "in_progress", "metadata": metadata},
            )
            await asyncio.sleep(self._delay_s)
            text = text or self._answer(self._numbers["response"])
            await self._send("response.output_audio_transcript.delta", **place, delta=text)
            down = StreamResampler(PCM_RATE_HZ, PHONE_RATE_HZ)
            for chunk in self._spoken(text):
                audio = pcm16_to_ulaw(down.push(chunk)) if self._ulaw else chunk
                await self._send(
                    "response.output_audio.delta", **place, delta=base64.b64encode(audio).decode()
                )
                await asyncio.sleep(CHUNK_MS / 1000 / self._speech_per_s)
            status = "completed"
        finally:
            if not self._over and not self._socket.closed:
                item = {"id": item_id, "type": "message", "role": "assistant", "status": status}
                done = {
                    "id": response_id,
                    "status": status,
                    "output": [item],
                    "usage": {},
                    "metadata": metadata,
                }
                await self._send(
                    "response.output_item.done", response_id=response_id, output_index=0, item=item
                )
                await self._send("response.done", response=done)

    def _new(self, kind: str) -> str:
        self._numbers[kind] += 1
        return f"{kind}_{self._numbers[kind]}"

    async def _send(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, "event_id": self._new("event"), **fields}
        with contextlib.suppress(ConnectionError):  # the client has gone, and `run` will see it
            await self._socket.send_str(json.dumps(event))
