"""A strict peer of OpenAI's GA Realtime API on loopback: turn detection, scripted answers, misbehaviour, a journal.

async with running() as fake:
    fake.answers = [Answer("Good morning."), Answer("Goodbye.", speed=2.0)]
    fake.transcripts = ["hello", None]           # None: the transcription failed
    fake.misbehave = [Fault(after_audio_ms=400, close_code=1011)]   # of the first connection
    ... a client at fake.url ...
    assert fake.sent("response.done") and fake.received("conversation.item.truncate")
    assert not fake.faults                       # what the client did wrong
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from tests.fakes.realtime_connection import Connection
from tests.fakes.realtime_script import Answer, Entry, Event, Fault, FunctionCall, Message

__all__ = ["Answer", "Connection", "Entry", "FakeRealtime", "Fault", "FunctionCall", "Message", "running"]

NO_ANSWER = Answer("Nothing was scripted.")


class FakeRealtime:
    """The server; see the module's text."""

    def __init__(self, key: str) -> None:
        self.url = ""
        """Such as "http://127.0.0.1:PORT/v1"."""
        self.answers: list[Answer] = []
        """Taken in order by responses of all kinds; one too few is a fault."""
        self.routine: Callable[[Event], Answer | None] = lambda wish: None
        """Asked first, with the `response` object of response.create; None: the next of `answers`."""
        self.transcripts: list[str | None] = []
        """Taken in order by committed turns; when empty: "turn N"."""
        self.transcript_delay_s = 0.0
        """0: before the response; else so long after the commit."""
        self.misbehave: list[Fault | None] = []
        """Taken in order by handshakes; then all is well."""
        self.unknown_every = 0
        """After so many events one of an unknown type."""
        self.late_deltas = 3
        """Audio deltas that still come after a cancel."""
        self.idle_scale = 1.0
        """Multiplies idle_timeout_ms, which the API does not allow below 5 s."""
        self.house_rules = True
        """Demand an event_id in response.create and no audio before session.updated; the real server does not."""
        self.connections: list[Connection] = []
        """Every handshake that was answered with a WebSocket."""
        self.refused: list[int] = []
        """Status codes of handshakes that were not; 0: never answered."""
        self.journal: list[Entry] = []
        self.faults: list[str] = []
        self._key = key
        self._ids: Counter[str] = Counter()
        self._turns = 0
        self._news = asyncio.Event()

    # --- for the test

    def sent(self, kind: str = "") -> list[Entry]:
        """Events the server sent, of this type or all."""
        return [e for e in self.journal if e.direction == "out" and kind in ("", e.kind)]

    def received(self, kind: str = "") -> list[Entry]:
        """Events the client sent, of this type or all."""
        return [e for e in self.journal if e.direction == "in" and kind in ("", e.kind)]

    @property
    def errors(self) -> list[str]:
        """Codes of the error events sent; where there is no code, the message."""
        errors = [entry.event["error"] for entry in self.sent("error")]
        return [error["code"] or error["message"] for error in errors]

    async def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Wait for something about the journal, e.g. `lambda: fake.sent("response.done")`."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._news.clear()
                await self._news.wait()

    # --- for the connections

    def note(self, entry: Entry) -> None:
        self.journal.append(entry)
        self._news.set()

    def new_id(self, kind: str) -> str:
        self._ids[kind] += 1
        return f"{kind}_{self._ids[kind]:04}"

    def next_answer(self, wish: Event) -> Answer:
        answer = self.routine(wish)
        if answer is None and not self.answers:
            self.faults.append("a response without a scripted answer")
            return NO_ANSWER
        return answer or self.answers.pop(0)

    def next_transcript(self) -> str | None:
        self._turns += 1
        return self.transcripts.pop(0) if self.transcripts else f"turn {self._turns}"

    # --- handshakes

    async def handle(self, request: web.Request) -> web.StreamResponse:
        fault = (self.misbehave.pop(0) if self.misbehave else None) or Fault()
        if fault.no_handshake:
            self._refuse(0)
            await asyncio.Event().wait()
        if fault.status:
            return self._refuse(fault.status, fault.body)
        wrong = self._wrong(request)
        if wrong:
            status, text = wrong
            self.faults.append(f"handshake: {text}")
            return self._refuse(status, text)
        connection = Connection(self, len(self.connections), request, fault)
        self.connections.append(connection)
        self._news.set()
        try:
            return await connection.serve()
        finally:
            self._news.set()

    def _wrong(self, request: web.Request) -> tuple[int, str] | None:
        if request.path != "/v1/realtime":
            return 404, f"unknown path {request.path}"
        if request.headers.get("Authorization") != f"Bearer {self._key}":
            return 401, "wrong or missing API key"
        if set(request.query) != {"model"} or not request.query["model"]:
            return 400, f"the query has to be model=..., not {sorted(request.query)}"
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return 426, "not a WebSocket"
        return None

    def _refuse(self, status: int, body: str = "") -> web.Response:
        self.refused.append(status)
        self._news.set()
        return web.Response(status=status or 500, text=body, content_type="application/json")


@asynccontextmanager
async def running(key: str = "test-key") -> AsyncIterator[FakeRealtime]:
    """Serve on a free loopback port; on leaving, connections still open are aborted."""
    fake = FakeRealtime(key)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield fake
    finally:
        for connection in fake.connections:
            if not connection.closed:
                connection.abort()
        await runner.cleanup()
