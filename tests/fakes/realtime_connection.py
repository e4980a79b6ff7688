"""The protocol of one connection of the fake Realtime server: client events, turns, conversation, responses."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.fakes.realtime_audio import TurnDetector, bytes_per_ms
from tests.fakes.realtime_response import Response
from tests.fakes.realtime_rules import Violation, check_client_event
from tests.fakes.realtime_script import Event, Fault, Item
from tests.fakes.realtime_session import Conversation, default_session, updated
from tests.fakes.realtime_wire import Wire

if TYPE_CHECKING:
    from tests.fakes.realtime_server import FakeRealtime

LIFETIME_S = 3600.0
MIN_COMMIT_MS = 100


class Connection(Wire):
    """From the handshake on; `session`, `items` and `close_code` are for the test to look at."""

    def __init__(self, server: FakeRealtime, number: int, request: web.Request, fault: Fault) -> None:
        super().__init__(server, number, request, fault)
        lifetime_s = LIFETIME_S if fault.expires_s is None else fault.expires_s
        expires_at = math.ceil(time.time() + lifetime_s - fault.clock_ahead_s)
        self.session = default_session(server.new_id("sess"), self.query.get("model", ""), expires_at)
        self.configured = False
        """A session.updated was sent."""
        self.items = Conversation()
        self.active: Response | None = None
        self.clock_ms = 0.0
        """Audio appended so far."""
        self._responses: dict[str, Response] = {}
        self._speech_item = ""
        self._buffer_ms = 0.0
        self._idle_from_ms: float | None = None
        self._detector: TurnDetector | None = None
        self._tune()

    # --- in

    async def _take(self, text: str) -> None:
        try:
            event = json.loads(text)
        except ValueError:
            self._note("in", {"type": "(not JSON)", "frame": text})
            return await self.violation(Violation("invalid_json", "The frame is not JSON.", None), None)
        self._note("in", self._without_audio(event) if isinstance(event, dict) else {"type": "(no event)"})
        if self._deaf:
            return
        try:
            check_client_event(event)
            self._house_rules(event)
        except Violation as error:
            return await self.violation(error, event)
        try:
            await self._do(event)
        except Violation as error:
            await self.error(error, event.get("event_id"))

    def _house_rules(self, event: Event) -> None:
        """Not the server's rules, but what a careful client does."""
        if not self._server.house_rules:
            return
        if event["type"] == "response.create" and "event_id" not in event:
            message = "Missing required parameter: 'event_id' (or the error of it can't be told from others)."
            raise Violation("missing_required_parameter", message, "event_id")
        if event["type"] == "input_audio_buffer.append" and not self.configured:
            raise Violation("invalid_value", "Audio before session.updated.", "audio")

    async def _do(self, event: Event) -> None:
        match event["type"]:
            case "session.update":
                await self._update(event["session"])
            case "input_audio_buffer.append":
                await self._append(event)
            case "input_audio_buffer.commit":
                await self._commit()
            case "input_audio_buffer.clear":
                self._buffer_ms, self._speech_item = 0.0, ""
                if self._detector:
                    self._detector.end()
                await self.send({"type": "input_audio_buffer.cleared"})
            case "response.create":
                await self._create(event.get("response", {}))
            case "response.cancel":
                await self._cancel(event.get("response_id"))
            case _:
                await self._item(event)

    async def _item(self, event: Event) -> None:
        item_id = event.get("item_id", "")
        match event["type"]:
            case "conversation.item.create":
                data = {"id": self._server.new_id("item"), "object": "realtime.item", "status": "completed"}
                item = Item({**data, **event["item"]})
                if item.data["type"] == "function_call":
                    item.data.setdefault("call_id", self._server.new_id("call"))
                previous = self.items.insert(item, event.get("previous_item_id"))
                await self._item_events(item, previous)
            case "conversation.item.delete":
                self.items.delete(item_id)
                await self.send({"type": "conversation.item.deleted", "item_id": item_id})
            case "conversation.item.retrieve":
                item = self.items.find(item_id, "retrieve")
                await self.send({"type": "conversation.item.retrieved", "item": item.data})
            case "conversation.item.truncate":
                cut = {name: event[name] for name in ("item_id", "content_index", "audio_end_ms")}
                self.items.truncate(**cut)
                await self.send({"type": "conversation.item.truncated", **cut})

    async def _update(self, wish: Event) -> None:
        has_spoken = any(item.audio_ms for item in self.items.all.values())
        before = self.session["audio"]["input"]
        self.session = updated(self.session, wish, self.fault, has_spoken=has_spoken)
        now = self.session["audio"]["input"]
        if self._detector is None or (before["turn_detection"], before["format"]) != (
            now["turn_detection"],
            now["format"],
        ):
            self._tune()
        if self.fault.never_updated:
            return
        if self.fault.update_delay_s:
            self._start(self._later(self.fault.update_delay_s, self._tell_update))
        else:
            await self._tell_update()

    async def _tell_update(self) -> None:
        self.configured = True
        await self.send({"type": "session.updated", "session": self.session})

    # --- the caller's audio

    def _without_audio(self, event: Event) -> Event:
        """The event with base64 audio replaced by its length in ms, where it is audio."""
        event = copy.deepcopy(event)
        item = event.get("item")
        content = item.get("content") if isinstance(item, dict) else None
        for part in [event, *(content if isinstance(content, list) else [])]:
            if isinstance(part, dict) and isinstance(part.get("audio"), str):
                with suppress(ValueError):
                    part["audio"] = self._length_ms(part["audio"], self._wire("input"))
        return event

    def _tune(self) -> None:
        settings = self.session["audio"]["input"]["turn_detection"]
        self._speech_item = ""
        self._detector = TurnDetector(settings, self._wire("input"), self.clock_ms) if settings else None

    async def _append(self, event: Event) -> None:
        wire = base64.b64decode(event["audio"])
        kind = self._wire("input")
        if kind == "audio/pcm" and len(wire) % 2:
            error = Violation("invalid_value", "Invalid 'audio': half a sample of PCM16.", "audio")
            return await self.violation(error, event)
        self.clock_ms += len(wire) / bytes_per_ms(kind)
        if self._detector is None:
            self._buffer_ms += len(wire) / bytes_per_ms(kind)
            return
        for heard in self._detector.push(wire):
            if heard.what == "started":
                await self._speech_started(heard.at_ms)
            else:
                await self._speech_stopped(heard.at_ms)
        await self._idle()

    async def _speech_started(self, at_ms: int) -> None:
        self._idle_from_ms = None
        self._speech_item = self._server.new_id("item")
        where = {"audio_start_ms": at_ms, "item_id": self._speech_item}
        await self.send({"type": "input_audio_buffer.speech_started", **where})
        if self.active and self._turns("interrupt_response"):
            self.active.cancel("turn_detected")

    async def _speech_stopped(self, at_ms: int) -> None:
        where = {"audio_end_ms": at_ms, "item_id": self._speech_item}
        await self.send({"type": "input_audio_buffer.speech_stopped", **where})
        await self._committed(self._speech_item)
        if self._turns("create_response"):
            # Not in the reading task: it waits for a response that is being cancelled.
            self._start(self._automatic())

    async def _idle(self) -> None:
        timeout_ms = self._turns("idle_timeout_ms")
        if self._idle_from_ms is None or not timeout_ms or self.active or self._speech_item:
            return
        end_ms = self._idle_from_ms + timeout_ms * self._server.idle_scale
        if self.clock_ms >= end_ms:
            item_id = self._server.new_id("item")
            span = {"audio_start_ms": round(self._idle_from_ms), "audio_end_ms": round(end_ms)}
            self._idle_from_ms = None
            await self.send({"type": "input_audio_buffer.timeout_triggered", **span, "item_id": item_id})
            await self._committed(item_id, transcribed=False)
            await self._automatic()

    def _turns(self, name: str) -> Any:
        settings = self.session["audio"]["input"]["turn_detection"]
        return settings.get(name) if settings else None

    async def _commit(self) -> None:
        speaking = self._detector is not None and self._detector.speaking
        held_ms = self._detector.speech_ms if self._detector and speaking else self._buffer_ms
        if held_ms < MIN_COMMIT_MS:
            message = (
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
                f"but buffer only has {held_ms:.2f}ms of audio."
            )
            raise Violation("input_audio_buffer_commit_empty", message, None)
        await self._committed(self._speech_item or self._server.new_id("item"))

    async def _committed(self, item_id: str, *, transcribed: bool = True) -> None:
        if self._detector:
            self._detector.end()
        self._buffer_ms, self._speech_item = 0.0, ""
        content = {"type": "input_audio", "transcript": None}
        head = {"id": item_id, "object": "realtime.item", "type": "message", "status": "completed"}
        item = Item({**head, "role": "user", "content": [content]})
        previous = self.items.append(item)
        committed = {"previous_item_id": previous, "item_id": item_id}
        await self.send({"type": "input_audio_buffer.committed", **committed})
        await self._item_events(item, previous)
        if transcribed and self.session["audio"]["input"]["transcription"]:
            text = self._server.next_transcript()
            delay_s = self._server.transcript_delay_s
            if delay_s:
                self._start(self._later(delay_s, lambda: self._transcribed(item, text)))
            else:
                await self._transcribed(item, text)

    async def _transcribed(self, item: Item, text: str | None) -> None:
        where = {"item_id": item.id, "content_index": 0}
        name = "conversation.item.input_audio_transcription"
        if text is None:
            message = "Input transcription failed for item."
            error = {
                "type": "server_error",
                "code": "transcription_failed",
                "message": message,
                "param": None,
            }
            return await self.send({"type": f"{name}.failed", **where, "error": error})
        item.data["content"][0]["transcript"] = text
        if text:
            await self.send({"type": f"{name}.delta", **where, "delta": text})
        usage = {"type": "duration", "seconds": 1.0}
        await self.send({"type": f"{name}.completed", **where, "transcript": text, "usage": usage})

    async def _item_events(self, item: Item, previous: str | None) -> None:
        for step in ("added", "done"):
            event = {"previous_item_id": previous, "item": item.data}
            await self.send({"type": f"conversation.item.{step}", **event})

    # --- responses

    async def _create(self, wish: Event) -> None:
        if self._race:
            self._race = False
            self._respond({})
        for each in wish.get("input", ()):
            if each["type"] == "item_reference":
                self.items.find(each["id"], "retrieve")
        self._respond(wish)

    async def _automatic(self) -> None:
        """The response a turn makes; it waits for one that is being cancelled."""
        for _ in range(100):
            if self.active is None or not self.active.cancelled:
                break
            await asyncio.sleep(0.01)
        try:
            self._respond({})
        except Violation as error:
            await self.error(error)

    def _respond(self, wish: Event) -> None:
        in_conversation = wish.get("conversation", "auto") == "auto"
        if in_conversation and self.active:
            message = (
                f"Conversation already has an active response in progress: {self.active.id}. "
                "Wait until the response is finished before creating a new one."
            )
            raise Violation("conversation_already_has_active_response", message, None)
        answer = self._server.next_answer(wish)
        response = Response(
            self.send, self.session, wish, answer, self._server.new_id, self._server.late_deltas
        )
        self._responses[response.id] = response
        if in_conversation:
            self.active = response
            response.on_item = self.items.append
        else:
            response.on_item = self._keep
        self._start(self._run(response))

    def _keep(self, item: Item) -> None:
        self.items.all[item.id] = item

    async def _run(self, response: Response) -> None:
        try:
            await response.run(self._free)
        finally:
            self._free(response)
        limits = [
            {"name": "requests", "limit": 1000, "remaining": 999, "reset_seconds": 0.06},
            {"name": "tokens", "limit": 50_000, "remaining": 49_950, "reset_seconds": 0.06},
        ]
        await self.send({"type": "rate_limits.updated", "rate_limits": limits})

    def _free(self, response: Response) -> None:
        """Just before response.done goes out, so that who reads it may create the next."""
        if self._responses.pop(response.id, None) and response is self.active:
            self.active = None
            self._idle_from_ms = self.clock_ms + response.audio_ms

    async def _cancel(self, response_id: str | None) -> None:
        response = self._responses.get(response_id) if response_id else self.active
        if response is None or response.cancelled:
            message = "Cancellation failed: no active response found"
            raise Violation("response_cancel_not_active", message, "response_id" if response_id else None)
        response.cancel("client_cancelled")
