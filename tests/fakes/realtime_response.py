"""One response of the fake Realtime server: its events from response.created to response.done, paced."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import cycle
from typing import Any, Literal

from tests.fakes.realtime_audio import bytes_per_ms, tone
from tests.fakes.realtime_script import MS_PER_CHARACTER, Answer, Event, FunctionCall, Item, Message, usage_of

Send = Callable[[Event], Awaitable[None]]


class Response:
    """Runs as a task; `cancel` ends it in its own time, with deltas that were in flight."""

    def __init__(
        self,
        send: Send,
        session: Event,
        wish: Event,
        answer: Answer,
        ids: Callable[[str], str],
        late_deltas: int,
    ) -> None:
        self.id = ids("resp")
        self.answer = answer
        self.in_conversation = wish.get("conversation", "auto") == "auto"
        self.conversation_id = ids("conv") if self.in_conversation else None
        self.modality: str = (wish.get("output_modalities") or session["output_modalities"])[0]
        self.voice: dict[str, Any] = {**session["audio"]["output"], **wish.get("audio", {}).get("output", {})}
        self.voice.pop("speed", None)
        self.metadata = wish.get("metadata")
        self.max_output_tokens = wish.get("max_output_tokens", session["max_output_tokens"])
        self.items: list[Item] = []
        self.audio_ms = 0.0
        self.on_item: Callable[[Item], str | None] = lambda item: None
        """Takes an item into the conversation; returns the id of the one before."""
        self._send = send
        self._ids = ids
        self._cancelled = asyncio.Event()
        self._reason: Literal["turn_detected", "client_cancelled"] = "client_cancelled"
        self._late_deltas = late_deltas
        self._started = 0.0
        self._stopped = False

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self, reason: Literal["turn_detected", "client_cancelled"]) -> None:
        if not self.cancelled:
            self._reason = reason
            self._cancelled.set()

    async def run(self, before_done: Callable[[Response], None]) -> None:
        await self._send({"type": "response.created", "response": self.json("in_progress")})
        await self._pause(86_400 if self.answer.hang else self.answer.first_delay_s)
        self._started = asyncio.get_running_loop().time()
        for message in self.answer.messages:
            if not self._ended:
                await self._message(message)
        for call in self.answer.function_calls:
            if not self._ended:
                await self._call(call)
        status = "cancelled" if self.cancelled else self.answer.status
        before_done(self)
        await self._send({"type": "response.done", "response": self.json(status)})

    def json(self, status: str) -> Event:
        done = status != "in_progress"
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": self._details(status),
            "output": [item.data for item in self.items] if done else [],
            "conversation_id": self.conversation_id,
            "output_modalities": [self.modality],
            "max_output_tokens": self.max_output_tokens,
            "audio": {"output": self.voice},
            "metadata": self.metadata,
            "usage": usage_of(self.answer, self.audio_ms, self.answer.usage) if done else None,
        }

    def _details(self, status: str) -> Event | None:
        match status:
            case "cancelled":
                return {"type": "cancelled", "reason": self._reason}
            case "incomplete":
                return {"type": "incomplete", "reason": self.answer.reason}
            case "failed":
                error = {
                    "type": "server_error",
                    "code": self.answer.error_code,
                    "message": self.answer.error_message,
                }
                return {"type": "failed", "error": error}
        return None

    @property
    def _ended(self) -> bool:
        return self.cancelled or self._stopped

    async def _pause(self, seconds: float) -> None:
        """Sleeps, unless it is or gets cancelled."""
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._cancelled.wait()
            except TimeoutError:
                pass

    # --- a message item

    async def _message(self, message: Message) -> None:
        data: Event = {**self._item_head("message"), "role": "assistant", "content": []}
        item = await self._begin(data)
        spoken = self.modality == "audio"
        where = {**self._where(item), "item_id": item.id, "content_index": 0}
        kind = "audio" if spoken else "text"
        words = {"transcript": ""} if spoken else {"text": ""}
        await self._send({"type": "response.content_part.added", **where, "part": {"type": kind, **words}})
        data["content"] = [
            {"type": "output_audio", "transcript": ""} if spoken else {"type": "output_text", "text": ""}
        ]
        said = await (self._speak(item, message, where) if spoken else self._write(message, where))
        name = "response.output_audio_transcript" if spoken else "response.output_text"
        words = {"transcript": said} if spoken else {"text": said}
        if spoken:
            await self._send({"type": "response.output_audio.done", **where})
        await self._send({"type": f"{name}.done", **where, **words})
        await self._send({"type": "response.content_part.done", **where, "part": {"type": kind, **words}})
        if item.audio_end_ms is None:
            data["content"][0].update(words)
        await self._finish(item)

    async def _write(self, message: Message, where: Event) -> str:
        said = ""
        for word in _words(message.text):
            said += word
            await self._send({"type": "response.output_text.delta", **where, "delta": word})
            await self._pause(0.005)
            if self.cancelled:
                break
        return said

    async def _speak(self, item: Item, message: Message, where: Event) -> str:
        """Audio and words side by side; after a cancel a few deltas more."""
        kind = self.voice["format"]["type"]
        per_ms = bytes_per_ms(kind)
        wire = tone(message.audio_ms or len(message.text) * MS_PER_CHARACTER, kind)
        words = list(_words(message.text))
        said, spoken, late = "", 0, 0
        for piece in _pieces(wire, self._sizes(per_ms)):
            while words and len(said) <= len(message.text) * spoken / len(wire):
                word = words.pop(0)
                said += word
                await self._send({"type": "response.output_audio_transcript.delta", **where, "delta": word})
            delta = base64.b64encode(piece).decode()
            spoken += len(piece)
            item.audio_ms += len(piece) / per_ms
            self.audio_ms += len(piece) / per_ms
            await self._send({"type": "response.output_audio.delta", **where, "delta": delta})
            limit = self.answer.stop_after_ms
            if self.answer.status != "completed" and limit is not None and self.audio_ms >= limit:
                self._stopped = True
                return said
            if self.cancelled:
                late += 1
                if late >= self._late_deltas:
                    return said
                await asyncio.sleep(0.01)
            else:
                due = self._started + self.audio_ms / 1000 / self.answer.speed
                await self._pause(due - asyncio.get_running_loop().time())
        for word in [] if self.cancelled else words:
            said += word
            await self._send({"type": "response.output_audio_transcript.delta", **where, "delta": word})
        return said

    def _sizes(self, per_ms: int) -> Iterator[int]:
        if self.answer.delta_bytes:
            return cycle(_list(self.answer.delta_bytes))
        return cycle(ms * per_ms for ms in _list(self.answer.delta_ms))

    # --- a function call item

    async def _call(self, call: FunctionCall) -> None:
        data: Event = {
            **self._item_head("function_call"),
            "name": call.name,
            "call_id": call.call_id or self._ids("call"),
            "arguments": "",
        }
        item = await self._begin(data)
        where = {**self._where(item), "item_id": item.id, "call_id": data["call_id"]}
        half = len(call.arguments) // 2
        for delta in (call.arguments[:half], call.arguments[half:]):
            await self._send({"type": "response.function_call_arguments.delta", **where, "delta": delta})
        done = {"name": call.name, "arguments": call.arguments}
        await self._send({"type": "response.function_call_arguments.done", **where, **done})
        data["arguments"] = call.arguments
        await self._finish(item)

    # --- any item

    def _item_head(self, kind: str) -> Event:
        return {"id": self._ids("item"), "object": "realtime.item", "type": kind, "status": "in_progress"}

    def _where(self, item: Item) -> Event:
        return {"response_id": self.id, "output_index": self.items.index(item)}

    async def _begin(self, data: Event) -> Item:
        item = Item(data)
        self.items.append(item)
        previous = self.on_item(item)
        await self._send({"type": "response.output_item.added", **self._where(item), "item": data})
        if self.in_conversation:
            await self._send({"type": "conversation.item.added", "previous_item_id": previous, "item": data})
        item.previous_id = previous
        return item

    async def _finish(self, item: Item) -> None:
        whole = not self.cancelled and not self._stopped
        item.data["status"] = "completed" if whole else "incomplete"
        await self._send({"type": "response.output_item.done", **self._where(item), "item": item.data})
        if self.in_conversation and not item.deleted:
            done = {"previous_item_id": item.previous_id, "item": item.data}
            await self._send({"type": "conversation.item.done", **done})


def _words(text: str) -> Iterator[str]:
    for index, word in enumerate(text.split(" ") if text else ()):
        yield word if index == 0 else f" {word}"


def _list(sizes: int | Sequence[int]) -> Sequence[int]:
    return [sizes] if isinstance(sizes, int) else list(sizes)


def _pieces(wire: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    place = 0
    while place < len(wire):
        size = next(sizes)
        yield wire[place : place + size]
        place += size
