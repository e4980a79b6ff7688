"""What strangers send to our servers: requests to the console and its API, and to the offline backend."""

from __future__ import annotations

import json
import re
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from aiohttp import web

from ari_app.guard import is_number
from ari_app.offline import realtime_config, server, voice, whisper
from ari_app.offline.realtime_hearing import Transcribe
from ari_app.offline.realtime_responses import Speak, Stop
from ari_app.offline.realtime_session import RealtimeSession, Work
from ari_app.web import access
from ari_app.web.api import MAX_TEXT, Api
from ari_app.web.phone import Phone
from ari_app.web.server import MAX_BODY_BYTES
from tests.fuzz.wire import asked, run

TOKEN, COOKIE, NAME = b"t0ken-of-the-fuzzer", b"c00kie-of-the-fuzzer", "console.example"
FORMATS = ("audio/pcm", "audio/pcmu", "audio/pcma")
OUR_HOST = re.compile(
    rf"(\[?[0-9a-f:.]*:[0-9a-z:.%_-]*\]?|\d+(\.\d+){{3}}|[^.]*|.*\.localhost|{re.escape(NAME)})\.?(:\d*)?",
    re.IGNORECASE | re.DOTALL,
)
"""An address, a name without a dot, or one that was set."""


class _Desk:
    """Takes what it is asked; that is checked."""

    def __init__(self) -> None:
        self.asked = 0

    async def place(self, number: str, who: str) -> str:
        self._take(number)
        return "call"

    def hang_up(self, call: str, who: str) -> None:
        self._take("x")

    async def say(self, call: str, text: str, who: str) -> None:
        self._take(text)

    def transfer(self, call: str, extension: str, who: str) -> None:
        assert is_number(extension)
        self._take(extension)

    def pause_recording(self, call: str, paused: bool, who: str) -> None:
        assert type(paused) is bool
        self._take("x")

    def _take(self, text: str) -> None:
        self.asked += 1
        assert 0 < len(text) <= MAX_TEXT and "\0" not in text and text.encode()


class _Live:
    """One call."""

    def summaries(self) -> list[dict[str, Any]]:
        return [{"call": "1"}]

    def detail(self, call_id: str) -> dict[str, Any] | None:
        return {"call": call_id} if call_id == "1" else None

    def changed(self, call_id: str) -> None:
        pass


class _Phone(Phone):
    """Asterisk is not there."""

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        assert request.headers.get("Origin", "").endswith(request.host), "another site's page telephones"
        return web.json_response({})


def web_request(data: bytes) -> None:
    """Bytes to the console's port: nobody comes in without the token or a session, and nothing of ours fails."""
    with tempfile.TemporaryDirectory() as folder, patch.object(access, "WRONG_TOKEN_S", 0):
        run(_web_request(data, Path(folder)))


async def _web_request(data: bytes, folder: Path) -> None:
    door = access.Access(TOKEN.decode(), [NAME])
    door._sessions[COOKIE.decode()] = access.Session(time.monotonic() + 60)
    desk = _Desk()
    api = Api(cast(Any, desk), cast(Any, _Live()), folder)

    phone = _Phone("http://asterisk.invalid", "pa55word", "100")

    @web.middleware
    async def admitted(request: web.Request, handler: access.Handler) -> web.StreamResponse:
        if request.path not in access.OPEN_PATHS:
            assert TOKEN in data or COOKIE in data, "a stranger was let in"
            if access.session_of(request):
                assert request.method in ("GET", "HEAD") or b"console" in data
        if request.path not in access.PROBES and "Authorization" not in request.headers:
            assert OUR_HOST.fullmatch(request.host), request.host
        return await handler(request)

    application = web.Application(middlewares=[door.middleware, admitted], client_max_size=MAX_BODY_BYTES)
    application.router.add_post("/login", door.login)
    application.router.add_post("/logout", door.logout)
    # The stream of events has no end.
    application.router.add_routes(
        [route for route in [*api.routes(), *phone.routes()] if route.path != "/api/events"]
    )
    answer = await asked(application, data)
    statuses = _statuses(answer)
    assert 500 not in statuses, answer
    assert not desk.asked or TOKEN in data or COOKIE in data
    assert b"Set-Cookie: ari_app_session=" not in answer.replace(b'session="";', b"") or TOKEN in data


def _statuses(answer: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"(?m)^HTTP/1\.[01] (\d{3})", answer)]


class _Ears:
    """Hears the same in all sound."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def knows(self, language: str) -> bool:
        return language in ("en", "es", "de")

    def transcribe(self, pcm: bytes, languages: object) -> whisper.Heard:
        assert len(pcm) % 2 == 0
        return whisper.Heard("Good day.", "en", -0.2, 0.0)


def _speak(piece: str, name: str, speed: float = 1.0) -> bytes:
    assert piece.encode() and len(piece) <= voice.LONGEST_CHARS and name in voice.VOICES
    return bytes(320)


def offline_request(data: bytes) -> None:
    """Bytes to the offline backend: what it can't do it refuses in OpenAI's form, and a stream has its end."""
    with patch.object(server, "TOKEN_S", 0), patch.object(voice, "speak", _speak):
        run(_offline_request(data))


async def _offline_request(data: bytes) -> None:
    answer = await asked(_backend().application(), data)
    assert 500 not in _statuses(answer), answer
    for body in re.findall(rb"(?m)^HTTP/1\.1 [45].*\r\nContent-Type: application/json[^{]*(\{.*\})", answer):
        message = json.loads(body)["error"]["message"]
        assert isinstance(message, str) and message
    if answer.count(b"HTTP/1.1 ") == 1 and b"Content-Type: text/event-stream" in answer:
        assert b"data: [DONE]\n\n" in answer, answer


@cache
def _backend() -> server.Backend:
    with (
        patch.object(whisper, "Whisper", _Ears),
        patch.object(whisper, "model_folder", lambda cache: cache),
        patch("os.cpu_count", lambda: 1),
    ):
        return server.Backend(Path("unused"))


def offline_events(data: bytes) -> None:
    """Lines of JSON as events of a Realtime client: each is obeyed or refused, and the session goes on."""
    sent: list[realtime_config.Event] = []
    work: list[Work] = []
    session = RealtimeSession(
        "k", "", 10, lambda event: sent.append(_echoed(event)), work.append, _Ears().knows
    )
    for line in data.split(b"\n")[:20]:
        try:
            session.receive(json.loads(line))
        except (ValueError, RecursionError) as refused:  # of JSON, at which the shell refuses it
            assert isinstance(refused, RecursionError | json.JSONDecodeError | UnicodeDecodeError) or (
                "digits" in str(refused)
            ), refused
        if not line.startswith(b" "):
            _work(session, work)
    _work(session, work)
    assert all(isinstance(event["type"], str) for event in sent)
    in_force = [event["session"]["audio"] for event in sent if "session" in event]
    assert all(side["format"]["type"] in FORMATS for audio in in_force for side in audio.values())
    assert len({event["event_id"] for event in sent}) == len(sent)
    session.receive(
        {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}}
    )
    assert sent[-1]["type"] == "session.updated"
    asks = {"conversation": "none", "instructions": "Say exactly: yes", "output_modalities": ["text"]}
    session.receive({"type": "response.create", "response": asks})
    done = [event for event in sent if event["type"] == "response.done"]
    assert done and done[-1]["response"]["status"] in ("completed", "incomplete")


def _echoed(event: realtime_config.Event) -> realtime_config.Event:
    copy: realtime_config.Event = json.loads(json.dumps(event))
    return copy


def _work(session: RealtimeSession, work: list[Work]) -> None:
    """What the shell does, at once."""
    stopped: set[str] = set()
    while work:
        match work.pop(0):
            case Transcribe(item_id=item_id, pcm=pcm):
                assert len(pcm) % 2 == 0
                session.understood(item_id, "Good day.", "en")
            case Speak(response_id=response_id, text=text, voice=name, speed=speed, format=wire_format):
                assert isinstance(text, str) and isinstance(name, str) and 0.25 <= speed <= 1.5
                assert wire_format["type"] in FORMATS
                if response_id not in stopped:
                    session.say(response_id, "Good day.", bytes(160))
                    session.finished(response_id)
            case Stop(response_id=response_id):
                stopped.add(response_id)


def _http(first: str, body: bytes = b"", *more: str) -> bytes:
    head = "\r\n".join([f"{first} HTTP/1.1", *more, f"Content-Length: {len(body)}", "", ""])
    return head.encode() + body


_HOST, _BEARER = f"Host: {NAME}", f"Authorization: Bearer {TOKEN.decode()}"
_COOKIE = f"Cookie: ari_app_session={COOKIE.decode()}"
WEB_REQUESTS = [
    _http("POST /login", b'{"token": "' + TOKEN + b'"}', _HOST),
    _http("POST /login", b'{"token": "wrong"}', "Host: [::1]:8080", "X-Forwarded-Proto: https"),
    _http("POST /logout", b"", _HOST, _COOKIE, "X-Requested-With: console"),
    _http("GET /api/calls", b"", "Host: evil.example", _BEARER),
    _http("GET /api/calls", b"", "Host: evil.example", _COOKIE),
    _http("GET /api/calls/1", b"", "Host: 127.0.0.1:8080", _COOKIE, "Accept: text/html"),
    _http("POST /api/calls", b'{"number": "+4930123456"}', _HOST, _COOKIE, "Origin: http://evil.example"),
    _http("POST /api/calls", b'{"number": "+4930123456"}', _HOST, _COOKIE, "X-Requested-With: console"),
    _http("GET /phone/sip", b"", _HOST, _COOKIE, f"Origin: http://{NAME}"),
    _http("GET /phone/sip", b"", _HOST, _COOKIE, "Origin: http://evil.example"),
    _http("POST /api/calls/1/say", b'{"text": "Hello"}', _HOST, _BEARER),
    _http("POST /api/calls/1/transfer", b'{"extension": "100"}', _HOST, _BEARER),
    _http("POST /api/calls/1/recording", b'{"paused": true}', _HOST, _BEARER),
    _http("GET /api/recordings?limit=5", b"", _HOST, _BEARER),
    _http("GET /api/recordings/x/peaks?columns=9", b"", _HOST, _BEARER),
    b"GET / HTTP/1.0\r\n\r\n",
]


def _form(*parts: bytes) -> bytes:
    return (
        b"".join(b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--b--\r\n"
    )


def _sound() -> bytes:
    from tests.fuzz.files import wav

    return wav(1, 8000, bytes(1700))


_JSON = "Content-Type: application/json"
_MULTIPART = "Content-Type: multipart/form-data; boundary=b"
_CHAT = b'{"model": "m", "messages": [{"role": "user", "content": "Hello?"}]'
OFFLINE_REQUESTS = [
    _http(
        "POST /v1/audio/transcriptions",
        _form(
            b'name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n' + _sound(),
            b'name="language"\r\n\r\nen',
            b'name="response_format"\r\n\r\nverbose_json',
        ),
        "Host: a",
        _MULTIPART,
    ),
    _http("POST /v1/audio/transcriptions", _form(b'name="file"\r\n\r\nabc'), "Host: a", _MULTIPART),
    _http("POST /v1/chat/completions", _CHAT + b"}", "Host: a", _JSON),
    _http(
        "POST /v1/chat/completions",
        _CHAT + b', "stream": true, "stream_options": {"include_usage": true}}',
        "Host: a",
        "Content-Type: application/json; charset=utf-8",
    ),
    _http("POST /v1/chat/completions", _CHAT[:-7] + b'\\ud800?"}], "stream": true}', "Host: a", _JSON),
    _http(
        "POST /v1/audio/speech",
        b'{"input": "Hello. Bye.", "voice": "alloy", "response_format": "pcm", "speed": 1}',
        "Host: a",
        _JSON,
    ),
    _http("GET /v1/models", b"", "Host: a"),
    _http("GET /v1/nothing", b"", "Host: a"),
]
_UPDATE = (
    b'{"type": "session.update", "session": {"type": "realtime", "instructions": "Be brief.", "audio": {"input": '
    b'{"format": {"type": "audio/pcmu"}, "transcription": {"model": "m", "language": "en"}, "turn_detection": '
    b'{"type": "semantic_vad", "eagerness": "low"}}, "output": {"voice": "v", "speed": 1.5}}}}'
)
EVENTS = [
    _UPDATE.replace(b"audio/pcmu", b"audio_pcmu"),
    _UPDATE + b'\n{"type": "response.create", "response": {"instructions": "Say exactly: yes"}}',
    b'{"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": null, '
    b'"format": {"type": "audio/pcm", "rate": 24000}}}}}\n'
    b'{"type": "input_audio_buffer.append", "audio": "' + b"AAAA" * 1000 + b'"}\n'
    b'{"type": "input_audio_buffer.commit"}\n{"type": "response.create"}\n{"type": "input_audio_buffer.clear"}',
    b'{"type": "conversation.item.create", "item": {"id": "i", "type": "message", "role": "user", "content": '
    b'[{"type": "input_text", "text": "Hello?"}]}}\n {"type": "response.create"}\n'
    b'{"type": "conversation.item.retrieve", "item_id": "i"}\n{"type": "response.cancel"}\n'
    b'{"type": "conversation.item.delete", "item_id": "i"}',
    b'{"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": '
    b'[{"type": "input_audio", "audio": "AAAAAAAA"}]}}',
    b' {"type": "response.create", "event_id": "e", "response": {"conversation": "none", "metadata": {"a": "b"}, '
    b'"instructions": "word for word", "input": [{"type": "message", "role": "user", "content": '
    b'[{"type": "input_text", "text": "Read"}]}]}}\n{"type": "response.cancel", "response_id": "x"}',
    b'{"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": 5}',
]
