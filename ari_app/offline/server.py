"""The embedded backend: an OpenAI-compatible server over speech models that ship inside packages. Shell.

Any model name is accepted, since there is one model per stage; unknown fields are ignored, as they are by other
compatible servers. What can't be done is refused in OpenAI's error form.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ari_app.audio.resample import StreamResampler
from ari_app.errors import SetupError
from ari_app.offline import answerer, wav

if TYPE_CHECKING:
    from ari_app.offline.whisper import Heard

T = TypeVar("T")

MODELS = {
    "whisper-base": "speech-to-text, MIT licence",
    "system-message-answers": "chat, part of this project",
    "pico": "text-to-speech, Apache-2.0 licence",
}
SPEECH_RATE_HZ = 24_000
"""OpenAI's rate for raw PCM."""
WHISPER_RATE_HZ = 16_000
DEFAULT_LANGUAGES = ("en", "es")
"""Whisper chooses between these where the request names none: of all languages it often takes a wrong one."""
MAX_UPLOAD_BYTES = 25 * 2**20
MAX_INPUT_CHARS = 4096
MAX_REQUESTS = 32
"""For speech, at once; more get 503, because a caller would not wait that long."""
TOKEN_S = 0.004
"""Between two words of a streamed answer: 250 words a second, quicker than any voice."""


def describe() -> str:
    """The first line a reader sees: what runs here and under which licences."""
    return "offline backend: " + "; ".join(f"{name} ({what})" for name, what in MODELS.items())


class Refused(Exception):
    """A request that can't be served, in OpenAI's form."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {
                "message": message,
                "type": "invalid_request_error" if status < 500 else "server_error",
                "param": param,
                "code": None,
            }
        }


class Backend:
    """The models and the handlers; one per process. Loading takes about a second."""

    def __init__(self, cache: Path) -> None:
        try:
            from ari_app.offline import realtime, voice, whisper
        except ModuleNotFoundError as error:
            raise SetupError(
                f"The offline backend needs the package {error.name}: pip install 'ari_app[offline]', or set "
                "OPENAI_API_KEY or OPENAI_BASE_URL to use another engine."
            ) from None
        workers = max(1, min(4, os.cpu_count() or 1))
        self._voice = voice
        self._whisper = whisper.Whisper(whisper.model_folder(cache), parallel=workers)
        self._compression_ratio = whisper.compression_ratio
        # Apart, so that a voice of 20 ms never waits for an ear of 300 ms.
        self._ears = ThreadPoolExecutor(workers, thread_name_prefix="whisper")
        self._mouth = ThreadPoolExecutor(1, thread_name_prefix="pico")
        self._requests = 0
        self._conversations = realtime.RealtimeServer(
            self._whisper, self._ears, self._mouth, DEFAULT_LANGUAGES
        )
        self._max_conversations = realtime.MAX_SESSIONS

    def close(self) -> None:
        """End the worker threads; work that has begun is finished first."""
        for pool in (self._ears, self._mouth):
            pool.shutdown(cancel_futures=True)

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application(client_max_size=MAX_UPLOAD_BYTES, middlewares=[_in_openai_form])
        application.add_routes(
            [
                web.get("/health", self._health),
                web.get("/v1/models", self._models),
                web.post("/v1/audio/transcriptions", self._transcriptions),
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/audio/speech", self._speech),
                web.get("/v1/realtime", self._realtime),
            ]
        )
        application.on_shutdown.append(self._conversations.close)
        return application

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._requests >= MAX_REQUESTS:
            raise Refused("The speech models are busy: try again in a moment.", status=503)
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    async def _health(self, request: web.Request) -> web.Response:
        sessions = self._conversations.sessions
        return web.json_response({"status": "ok", "requests": self._requests, "sessions": sessions})

    async def _models(self, request: web.Request) -> web.Response:
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "ari_app"} for name in MODELS]
        return web.json_response({"object": "list", "data": models})

    async def _realtime(self, request: web.Request) -> web.StreamResponse:
        if self._conversations.sessions >= self._max_conversations:
            raise Refused("Too many realtime sessions: try again in a moment.", status=503)
        return await self._conversations.serve(request)

    # --- speech-to-text ------------------------------------------------------------------------------

    async def _transcriptions(self, request: web.Request) -> web.Response:
        form = await _form(request)
        upload = form.get("file")
        if not isinstance(upload, web.FileField):
            raise Refused("The field 'file' is missing: send the audio as a file.", param="file")
        with upload.file:  # closed here, because a cancelled request would leave it open
            data = upload.file.read()
        answer_format = form.get("response_format", "json")
        if answer_format not in ("json", "text", "verbose_json"):
            raise Refused("response_format must be json, text or verbose_json.", param="response_format")
        languages = [str(value) for name in ("language", "languages[]") for value in form.getall(name, ())]
        for language in languages:
            if not self._whisper.knows(language):
                raise Refused(f"'{language}' is not an ISO 639-1 code that Whisper knows.", param="language")
        with self._admitted():
            heard, seconds = await _in(self._ears, self._hear, data, languages or DEFAULT_LANGUAGES)
        if answer_format == "text":
            return web.Response(text=heard.text + "\n")
        body: dict[str, Any] = {"text": heard.text, "languages": [{"code": heard.language}]}
        if answer_format == "verbose_json":
            body = self._verbose(heard, seconds)
        return web.json_response(body | {"usage": {"type": "duration", "seconds": round(seconds)}})

    def _hear(self, data: bytes, languages: Sequence[str]) -> tuple[Heard, float]:
        try:
            pcm = wav.read_wav(data, WHISPER_RATE_HZ)
        except ValueError as error:
            raise Refused(str(error), param="file") from None
        return self._whisper.transcribe(pcm, languages), len(pcm) / 2 / WHISPER_RATE_HZ

    def _verbose(self, heard: Heard, seconds: float) -> dict[str, Any]:
        segment = {
            "id": 0,
            "seek": 0,
            "start": 0.0,
            "end": seconds,
            "text": heard.text,
            "tokens": [],
            "temperature": 0.0,
            "avg_logprob": heard.avg_logprob,
            "no_speech_prob": heard.no_speech_prob,
            "compression_ratio": self._compression_ratio(heard.text),
        }
        return {
            "task": "transcribe",
            "language": heard.language,
            "duration": seconds,
            "text": heard.text,
            "segments": [segment] if heard.text else [],
        }

    # --- chat ----------------------------------------------------------------------------------------

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await _json(request)
        messages = _messages(body)
        reply = answerer.answer(messages)
        first, *rest = reply.split(" ")
        tokens = [first, *(" " + word for word in rest)]
        usage = {
            "prompt_tokens": sum(len(text.split()) for _, text in messages),
            "completion_tokens": len(tokens),
        }
        usage["total_tokens"] = sum(usage.values())
        head = {
            "id": f"chatcmpl-{time.time_ns():x}",
            "created": int(time.time()),
            "model": str(body.get("model") or "system-message-answers"),
        }
        if body.get("stream"):
            options = body.get("stream_options")
            wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))
            return await _stream_chat(request, head, tokens, usage if wants_usage else None)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply}}
        return web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})

    # --- text-to-speech ------------------------------------------------------------------------------

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        body = await _json(request)
        text = body.get("input")
        if not isinstance(text, str) or len(text) > MAX_INPUT_CHARS:
            raise Refused(f"input must be a text of at most {MAX_INPUT_CHARS} characters.", param="input")
        answer_format = body.get("response_format") or "wav"
        if answer_format not in ("pcm", "wav"):
            raise Refused(
                "response_format must be pcm or wav: no encoder is included.", param="response_format"
            )
        speed = body.get("speed", 1.0)
        if not isinstance(speed, int | float) or not 0.25 <= speed <= 4:
            raise Refused("speed must be a number from 0.25 to 4.", param="speed")
        kind = f"audio/pcm;rate={SPEECH_RATE_HZ}" if answer_format == "pcm" else "audio/wav"
        response = web.StreamResponse(headers={"Content-Type": kind})
        with self._admitted():
            async for pcm in self._say(text, str(body.get("voice", "")), float(speed)):
                if not response.prepared:  # not before there is speech: until then an error has a status
                    await response.prepare(request)
                    if answer_format == "wav":
                        await response.write(wav.endless_header(SPEECH_RATE_HZ))
                await response.write(pcm)
        if not response.prepared:
            raise Refused("input has nothing that can be spoken.", param="input")
        return response

    async def _say(self, text: str, voice_name: str, speed: float) -> AsyncIterator[bytes]:
        """PCM16 at `SPEECH_RATE_HZ`, piece by piece; nothing at all if there is nothing to speak."""
        voice = self._voice.pick_voice(voice_name, text)
        resampler = StreamResampler(self._voice.RATE_HZ, SPEECH_RATE_HZ)
        pause = b""
        for piece in self._voice.pieces(text):
            pcm = await _in(self._mouth, self._voice.speak, piece, voice, speed)
            if pcm:
                yield resampler.push(pause + pcm)
                pause = self._voice.PAUSE
        if pause:
            yield resampler.flush()


# --- requests and responses --------------------------------------------------------------------------


@web.middleware
async def _in_openai_form(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
        return response
    except Refused as refusal:
        return web.json_response(refusal.body, status=refusal.status)
    except web.HTTPException as error:
        return web.json_response(Refused(error.reason, status=error.status).body, status=error.status)


async def _in(pool: Executor, work: Callable[..., T], *arguments: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (ValueError, LookupError, RecursionError):  # LookupError: an encoding that nobody knows
        raise Refused("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise Refused("The body is not a JSON object.")
    return body


async def _form(request: web.Request) -> Any:
    if not request.content_type.startswith("multipart/"):
        raise Refused("Send the audio as multipart/form-data.")
    try:
        return await request.post()
    except (HttpProcessingError, ValueError, LookupError, RuntimeError) as error:
        raise Refused(f"The form can't be read: {error}") from None


def _messages(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Role and text of each message."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused("messages must be a list with at least one message.", param="messages")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Refused("Each message must be an object with a role.", param="messages")
    return [(message["role"], _text_of(message.get("content"))) for message in messages]


def _text_of(content: object) -> str:
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


async def _stream_chat(
    request: web.Request, head: dict[str, Any], tokens: Sequence[str], usage: dict[str, int] | None
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    head = {**head, "object": "chat.completion.chunk"}
    deltas = [{"role": "assistant", "content": ""}, *({"content": token} for token in tokens), {}]
    for delta in deltas:
        choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
        await _event(response, {**head, "choices": [choice]})
        await asyncio.sleep(TOKEN_S)
    if usage is not None:
        await _event(response, {**head, "choices": [], "usage": usage})
    await response.write(b"data: [DONE]\n\n")
    return response


async def _event(response: web.StreamResponse, data: dict[str, Any]) -> None:
    text = json.dumps(data, ensure_ascii=False)
    # Half a character, which UTF-8 has not, becomes an escape that means the same in JSON.
    await response.write(f"data: {text}\n\n".encode(errors="backslashreplace"))


# --- running -----------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """${XDG_CACHE_HOME:-~/.cache}/ari_app."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root else Path.home() / ".cache") / "ari_app"


@asynccontextmanager
async def running(host: str, port: int) -> AsyncIterator[str]:
    """The server, listening; yields its base URL.

    Raises:
        SetupError: packages are missing, or the port is taken.
    """
    backend = await asyncio.to_thread(Backend, cache_folder())
    # Cancelled when the client goes: speech that nobody waits for any more is not computed.
    runner = web.AppRunner(backend.application(), access_log=None, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise SetupError(
                f"{host} port {port} can't be listened on: {error.strerror}; choose another --port."
            ) from None
        bound_host, bound_port = runner.addresses[0][:2]
        yield f"http://{bound_host}:{bound_port}/v1"
    finally:
        await runner.cleanup()
        backend.close()
