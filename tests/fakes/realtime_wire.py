"""The wire of one connection of the fake Realtime server: handshake to close, journal, faults at their moments."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from aiohttp import WSMsgType, web

from tests.fakes.realtime_audio import bytes_per_ms
from tests.fakes.realtime_rules import Violation
from tests.fakes.realtime_script import GARBAGE, Entry, Event, Fault

if TYPE_CHECKING:
    from tests.fakes.realtime_server import FakeRealtime

EXPIRED = "Your session hit the maximum duration of 60 minutes."
UNKNOWN_EVENT: Event = {"type": "conversation.weather.changed", "weather": {"sky": "blue"}, "item_id": None}


class Wire:
    """What all connections do, whatever is spoken on them; `Connection` adds the protocol."""

    def __init__(self, server: FakeRealtime, number: int, request: web.Request, fault: Fault) -> None:
        self.number = number
        self.headers = dict(request.headers)
        self.query = dict(request.query)
        self.fault = fault
        self.opened_at = asyncio.get_running_loop().time()
        self.closed = False
        self.close_code: int | None = None
        """The client's, or ours when it was we who closed; None: the connection broke."""
        self.session: Event = {}
        """As it is in force."""
        self._server = server
        self._request = request
        self._socket = web.WebSocketResponse(autoping=False, compress=False, max_msg_size=2**25)
        self._faults = [fault] if _has_deed(fault) else []
        self._race = False
        self._deaf: Literal["", "silent", "half_open"] = ""
        self._sent_events = 0
        self._sent_audio_ms = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def _take(self, text: str) -> None:
        """A frame came."""
        raise NotImplementedError

    # --- life

    async def serve(self) -> web.WebSocketResponse:
        await self._socket.prepare(self._request)
        try:
            await self._greet()
            await self._read()
        finally:
            self.closed = True
            if self.close_code is None and self._socket.close_code != 1006:
                self.close_code = self._socket.close_code
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        return self._socket

    async def _greet(self) -> None:
        if "OpenAI-Beta" in self.headers:
            self._server.faults.append("the header OpenAI-Beta belongs to the dead beta")
            text = "The Realtime Beta API is no longer supported. Please use /v1/realtime for the GA API."
            await self.error(Violation("beta_api_shape_disabled", text, None))
            return await self.close(4000, "beta_api_shape_disabled")
        for fault in [*self._faults]:
            if fault.after_events is None and fault.after_audio_ms is None and fault.after_s is None:
                await self._due(fault)
            elif fault.after_s is not None:
                self._start(self._later(fault.after_s, lambda fault=fault: self._due(fault)))  # type: ignore[misc]
        if self.fault.expires_s is not None:
            self._start(self._later(self.fault.expires_s, self.expire))
        await self.send({"type": "session.created", "session": self.session})

    async def _read(self) -> None:
        while True:
            if self._deaf == "half_open":
                await asyncio.Event().wait()
            message = await self._socket.receive()
            if message.type is WSMsgType.PING:
                if self._deaf != "half_open":
                    with suppress(ConnectionError):
                        await self._socket.pong(message.data)
            elif message.type is WSMsgType.TEXT:
                if self._deaf != "half_open":
                    await self._take(message.data)
            elif message.type is WSMsgType.BINARY:
                await self.violation(Violation("invalid_value", "Expected a text frame.", None), None)
            elif message.type is not WSMsgType.PONG:
                return

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="fake-realtime")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            self._server.faults.append(f"the fake itself failed: {task.exception()!r}")

    async def _later(self, seconds: float, deed: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(seconds)
        await deed()

    # --- what a test may do to it at any time

    async def strike(self, fault: Fault) -> None:
        """Do the deed of a fault now."""
        if fault.unknown_event:
            await self.send(UNKNOWN_EVENT)
        if fault.garbage:
            for frame in GARBAGE:
                await self.write(frame)
        if fault.error_code:
            await self.error(Violation(fault.error_code, fault.error_message, None))
        if fault.race:
            self._race = True
        if fault.silent or fault.half_open:
            self._deaf = "half_open" if fault.half_open else "silent"
        if fault.close_code:
            await self.close(fault.close_code, fault.close_reason)
        if fault.reset:
            self.abort()

    async def close(self, code: int = 1001, reason: str = "") -> None:
        """Send a close frame and shut the connection without waiting for the client's."""
        if not self.closed:
            self.close_code = code
            self._deaf = "silent"
            with suppress(ConnectionError):
                # aiohttp's close() would wait here for the answer, which our reading task will take.
                await self._writer_close(code, reason)

    async def _writer_close(self, code: int, reason: str) -> None:
        writer = self._socket._writer
        assert writer is not None
        await writer.close(code, reason.encode())

    def abort(self) -> None:
        """Reset the TCP connection."""
        transport = self._request.transport
        if transport:
            tcp = transport.get_extra_info("socket")
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()

    async def expire(self) -> None:
        await self.error(Violation("session_expired", EXPIRED, None))
        await self.close(1001, EXPIRED)

    # --- out

    async def send(self, event: Event) -> None:
        """Give it an id, send it, note it; then see whether a fault is due."""
        if self._deaf or self.closed:
            return
        event = {"event_id": self._server.new_id("event"), **copy.deepcopy(event)}
        noted = dict(event)
        if event["type"] == "response.output_audio.delta":
            length_ms = self._length_ms(event["delta"], self._wire("output"))
            noted["delta"] = length_ms
            self._sent_audio_ms += length_ms
        self._note("out", noted)
        self._sent_events += 1
        await self.write(json.dumps(event), noted=False)
        for fault in [*self._faults]:
            by_events = fault.after_events is not None and self._sent_events >= fault.after_events
            if by_events or (
                fault.after_audio_ms is not None and self._sent_audio_ms >= fault.after_audio_ms
            ):
                await self._due(fault)
        every = self._server.unknown_every
        if every and self._sent_events % every == 0 and event["type"] != UNKNOWN_EVENT["type"]:
            await self.send(UNKNOWN_EVENT)

    async def write(self, frame: str | bytes, *, noted: bool = True) -> None:
        if noted:
            self._note("out", {"type": "(garbage)", "frame": frame})
        with suppress(ConnectionError):
            await (self._socket.send_str(frame) if isinstance(frame, str) else self._socket.send_bytes(frame))

    async def error(self, error: Violation, event_id: object = None) -> None:
        body = {
            "type": "invalid_request_error",
            "code": error.code,
            "message": error.message,
            "param": error.param,
            "event_id": event_id if isinstance(event_id, str) else None,
        }
        await self.send({"type": "error", "error": body})

    async def violation(self, error: Violation, event: Any) -> None:
        """The client broke the rules: answered, and noted for the test."""
        kind = event.get("type") if isinstance(event, dict) else None
        self._server.faults.append(f"{kind or 'frame'}: {error.message}")
        await self.error(error, event.get("event_id") if isinstance(event, dict) else None)

    async def _due(self, fault: Fault) -> None:
        if fault in self._faults:
            self._faults.remove(fault)
            await self.strike(fault)

    def _note(self, direction: Literal["in", "out"], event: Event) -> None:
        now = asyncio.get_running_loop().time()
        self._server.note(Entry(now, self.number, direction, event))

    def _wire(self, direction: Literal["input", "output"]) -> str:
        return str(self.session["audio"][direction]["format"]["type"])

    def _length_ms(self, audio: str, kind: str) -> float:
        return len(base64.b64decode(audio)) / bytes_per_ms(kind)


def _has_deed(fault: Fault) -> bool:
    deeds = (fault.close_code, fault.reset, fault.error_code, fault.silent, fault.half_open, fault.garbage)
    return any((*deeds, fault.unknown_event, fault.race))
