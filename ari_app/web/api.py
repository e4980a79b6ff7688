"""The HTTP API: watch calls, place them, end them, speak in them. Described by `description.py`. Shell."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import web

from ari_app.desk import Desk
from ari_app.errors import (
    AriAppError,
    ConfigError,
    DiskTooSlow,
    EngineError,
    LimitReached,
    NoSuchCall,
    SetupError,
)
from ari_app.guard import is_number
from ari_app.live import LiveCalls, TooManyWatchers, Waiting
from ari_app.record.archive import Archive, read_events
from ari_app.record.events import with_stages
from ari_app.record.folder import AUDIO
from ari_app.record.peaks import Peaks, peaks_of
from ari_app.record.reader import Reader
from ari_app.web.access import Session, read_body, session_of, who
from ari_app.web.description import description

logger = logging.getLogger(__name__)

MAX_TEXT = 1000
"""Characters of a sentence to say."""
MAX_LISTED = 200
MAX_COLUMNS = 4000
NO_SOUND = "there is no sound that could be played: it is sealed, or was not kept"
LEVELS_EVERY_S = 0.2
READ_S = 10.0
"""A reader of the stream who takes longer is not there any more."""
QUIET_S = 15.0
"""So often a stream without news shows that it lives."""


class BadRequest(AriAppError):
    """The request is not what the description says."""


STATUS: Mapping[type[AriAppError], int] = {
    BadRequest: 400,
    ConfigError: 422,
    LimitReached: 429,
    NoSuchCall: 404,
    EngineError: 502,
    DiskTooSlow: 503,
    SetupError: 503,
}
"""All others are faults of ours."""


class Api:
    """The handlers.

    Args:
        desk: what can be done.
        live: what is seen of it.
        recordings: RECORDINGS_DIR.
    """

    def __init__(self, desk: Desk, live: LiveCalls, recordings: Path) -> None:
        self._desk = desk
        self._live = live
        self._archive = Archive(recordings)
        self._disk = Reader()

    def routes(self) -> list[web.RouteDef]:
        """All of /api."""
        guarded = self._guarded
        return [
            web.get("/api/openapi.json", self._description),
            web.get("/api/calls", self._list),
            web.post("/api/calls", guarded(self._place)),
            web.get("/api/calls/{call}", guarded(self._show)),
            web.post("/api/calls/{call}/hangup", guarded(self._hang_up)),
            web.post("/api/calls/{call}/say", guarded(self._say)),
            web.post("/api/calls/{call}/transfer", guarded(self._transfer)),
            web.post("/api/calls/{call}/recording", guarded(self._recording)),
            web.get("/api/events", self._events),
            web.get("/api/recordings", guarded(self._recordings)),
            web.get("/api/recordings/{name}", guarded(self._recorded)),
            web.get("/api/recordings/{name}/audio", guarded(self._audio)),
            web.get("/api/recordings/{name}/peaks", guarded(self._peaks)),
        ]

    @staticmethod
    def _guarded(
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """What is raised on purpose becomes an answer."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except AriAppError as error:
                status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
                return web.json_response({"error": str(error)}, status=status)

        return guarded

    # --- calls

    async def _description(self, request: web.Request) -> web.Response:
        return web.json_response(description())

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({"calls": self._live.summaries()})

    async def _show(self, request: web.Request) -> web.Response:
        call_id = request.match_info["call"]
        detail = self._live.detail(call_id)
        if detail is None:
            raise NoSuchCall(f"there is no call {call_id}")
        return web.json_response(detail)

    async def _place(self, request: web.Request) -> web.Response:
        number = _text(await _body(request, "number"), "number")
        call_id = await self._desk.place(number, who(request))
        return web.json_response({"call": call_id}, status=201)

    async def _hang_up(self, request: web.Request) -> web.Response:
        await _body(request)
        self._desk.hang_up(request.match_info["call"], who(request))
        return web.json_response({"ok": True})

    async def _say(self, request: web.Request) -> web.Response:
        text = _text(await _body(request, "text"), "text")
        await self._desk.say(request.match_info["call"], text, who(request))
        return web.json_response({"ok": True})

    async def _transfer(self, request: web.Request) -> web.Response:
        extension = _text(await _body(request, "extension"), "extension")
        if not is_number(extension):
            raise BadRequest(
                f"'{extension}' is no extension: use digits, * and #, with a + in front if needed"
            )
        self._desk.transfer(request.match_info["call"], extension, who(request))
        return web.json_response({"ok": True})

    async def _recording(self, request: web.Request) -> web.Response:
        paused = (await _body(request, "paused"))["paused"]
        if not isinstance(paused, bool):
            raise BadRequest("paused must be true or false")
        self._desk.pause_recording(request.match_info["call"], paused, who(request))
        self._live.changed(request.match_info["call"])
        return web.json_response({"ok": True})

    # --- what happens

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events (WHATWG HTML, section 9.2), from a first one that holds all calls."""
        try:
            with self._live.watch() as waiting:
                response = web.StreamResponse(
                    headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
                )
                await response.prepare(request)
                await _send(response, {"type": "calls", "calls": self._live.summaries()})
                await self._tell(response, waiting, session_of(request))
                return response
        except TooManyWatchers:
            return web.json_response({"error": "too many watch already"}, status=429)
        except ConnectionResetError:  # the watcher went away
            return response
        except TimeoutError:  # or does not read; what was sent is not waited for
            if request.transport is not None:
                request.transport.abort()
            return response

    async def _tell(self, response: web.StreamResponse, waiting: Waiting, session: Session | None) -> None:
        """Hand on what happens, and the levels by the clock, until the watcher is let go or its session is over."""
        loop = asyncio.get_running_loop()
        told_at = levels_at = loop.time()
        while self._live.is_watching(waiting) and (session is None or session.lasts):
            message = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(levels_at + LEVELS_EVERY_S):
                    message = await waiting.get()
            if message is not None:
                await _send(response, message)
                told_at = loop.time()
            if loop.time() < levels_at + LEVELS_EVERY_S:
                continue
            levels_at = loop.time()
            if levels := self._live.levels():
                await _send(response, {"type": "levels", "levels": levels})
            elif levels_at - told_at > QUIET_S:
                await _write(response, b": nothing new\n\n")
            else:
                continue
            told_at = levels_at

    # --- what was recorded

    async def _recordings(self, request: web.Request) -> web.Response:
        limit = _number(request, "limit", default=MAX_LISTED, most=MAX_LISTED)

        def read() -> list[dict[str, Any]]:
            return [
                {**asdict(call), "started": call.started.isoformat()}
                for call in self._archive.calls(limit=limit)
            ]

        return web.json_response({"recordings": await self._disk.read(read)})

    async def _recorded(self, request: web.Request) -> web.Response:
        def read() -> tuple[str, list[dict[str, Any]]]:
            folder = self._folder(request)
            return folder.name, [with_stages(event) for event in read_events(folder)]

        name, events = await self._disk.read(read)
        return web.json_response({"name": name, "events": events})

    async def _audio(self, request: web.Request) -> web.StreamResponse:
        def find() -> Path:
            path = self._folder(request) / AUDIO
            if not path.is_file():
                raise NoSuchCall(NO_SOUND)
            return path

        path = await self._disk.read(find)
        return web.FileResponse(path, headers={"Content-Type": "audio/wav"})

    async def _peaks(self, request: web.Request) -> web.Response:
        columns = _number(request, "columns", default=800, most=MAX_COLUMNS)

        def read() -> Peaks:
            try:
                return peaks_of(self._folder(request) / AUDIO, columns)
            except (FileNotFoundError, ValueError):
                raise NoSuchCall(NO_SOUND) from None

        peaks = await self._disk.read(read)
        sides = {"caller": peaks.caller, "bot": peaks.bot}
        return web.json_response(
            {"seconds": peaks.seconds, **{side: values.round(3).tolist() for side, values in sides.items()}}
        )

    def _folder(self, request: web.Request) -> Path:
        name = request.match_info["name"]
        folder = self._archive.find(name)
        if folder is None:
            raise NoSuchCall(f"there is no recording {name}")
        return folder


async def _send(response: web.StreamResponse, message: Mapping[str, Any]) -> None:
    text = json.dumps(message, ensure_ascii=False)
    # Half a character, which UTF-8 has not, becomes an escape that means the same in JSON.
    await _write(response, f"data: {text}\n\n".encode(errors="backslashreplace"))


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Send; TimeoutError when the reader stopped reading."""
    async with asyncio.timeout(READ_S):
        await response.write(data)


async def _body(request: web.Request, *names: str) -> dict[str, Any]:
    """The request's JSON object, which has exactly these members; a body without any may be left out."""
    text = await read_body(request)
    try:
        body = json.loads(text) if text or names else {}
    except (ValueError, RecursionError):
        raise BadRequest("the body must be JSON") from None
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    if set(body) != set(names):
        raise BadRequest(f"the body must have {', '.join(names) or 'no members'}")
    return body


def _number(request: web.Request, name: str, *, default: int, most: int) -> int:
    given = request.query.get(name, str(default))
    if not given.isascii() or not given.isdigit() or not 1 <= int(given[:9]) <= most:
        raise BadRequest(f"{name} must be a number from 1 to {most}")
    return int(given[:9])


def _is_torn(text: str) -> bool:
    """JSON can carry half a character, which nobody can say."""
    return any("\ud800" <= char <= "\udfff" for char in text)


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body[name]
    if (
        not isinstance(value, str)
        or not value.strip()
        or len(value) > MAX_TEXT
        or "\0" in value
        or _is_torn(value)
    ):
        raise BadRequest(f"{name} must be a text of 1 to {MAX_TEXT} characters")
    return value.strip()
