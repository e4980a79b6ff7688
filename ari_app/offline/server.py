"""The embedded backend: an OpenAI-compatible server over speech models that ship inside packages. Shell.

Any model name is accepted, since there is one model per stage; unknown fields are ignored, as they are by other
compatible servers. What can't be done is refused in OpenAI's error form.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import time
import wave
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from aiohttp import web

from ari_app.audio.resample import StreamResampler
from ari_app.errors import SetupError
from ari_app.offline import answerer

logger = logging.getLogger(__name__)

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
MAX_UPLOAD_BYTES = 25 * 2**20
MAX_INPUT_CHARS = 4096
MAX_WAITING = 32
"""Requests in the models' queue; more get 503, because a caller would not wait that long."""
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
    """The models and the handlers; one per process. Loading takes about two seconds."""

    def __init__(self, cache: Path) -> None:
        try:
            from ari_app.offline import voice, whisper
        except ModuleNotFoundError as error:
            raise SetupError(
                f"The offline backend needs the package {error.name}: pip install 'ari_app[offline]', or set "
                "OPENAI_API_KEY or OPENAI_BASE_URL to use another engine."
            ) from None
        workers = max(1, min(4, os.cpu_count() or 1))
        self._voice = voice
        self._whisper = whisper.Whisper(whisper.model_folder(cache), parallel=workers)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="model")
        self._waiting = 0

    def close(self) -> None:
        """End the worker threads; work that has begun is finished first."""
        self._pool.shutdown(cancel_futures=True)

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
            ]
        )
        return application

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        if self._waiting >= MAX_WAITING:
            raise Refused("The models are busy: try again in a moment.", status=503)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        finally:
            self._waiting -= 1

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "waiting": self._waiting})

    async def _models(self, request: web.Request) -> web.Response:
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "ari_app"} for name in MODELS]
        return web.json_response({"object": "list", "data": models})

    # --- speech-to-text ------------------------------------------------------------------------------

    async def _transcriptions(self, request: web.Request) -> web.Response:
        form = await _form(request)
        upload = form.get("file")
        if not isinstance(upload, web.FileField):
            raise Refused("The field 'file' is missing: send the audio as a file.", param="file")
        answer_format = str(form.get("response_format", "json"))
        if answer_format not in ("json", "text", "verbose_json"):
            raise Refused("response_format must be json, text or verbose_json.", param="response_format")
        wanted = [str(form[name]) for name in ("language", "languages[]") if form.get(name)]
        pcm = read_wav(upload.file.read())
        text, language = await self._run(self._whisper.transcribe, pcm, tuple(wanted) or DEFAULT_LANGUAGES)
        if answer_format == "text":
            return web.Response(text=text + "\n")
        seconds = len(pcm) / 2 / WHISPER_RATE_HZ
        body: dict[str, Any] = {"text": text}
        if answer_format == "verbose_json":
            body |= {"task": "transcribe", "language": language, "duration": seconds, "segments": []}
        else:
            body |= {"languages": [{"code": language}]}
        return web.json_response(body | {"usage": {"type": "duration", "seconds": round(seconds)}})

    # --- chat ----------------------------------------------------------------------------------------

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await _json(request)
        messages = [(str(m["role"]), _text_of(m.get("content"))) for m in _messages(body)]
        reply = answerer.answer(messages)
        tokens = reply.split(" ")
        tokens = [token if i == 0 else " " + token for i, token in enumerate(tokens)]
        usage = {
            "prompt_tokens": sum(len(text.split()) for _, text in messages),
            "completion_tokens": len(tokens),
        }
        usage["total_tokens"] = sum(usage.values())
        head = {
            "id": f"chatcmpl-{time.time_ns():x}",
            "created": int(time.time()),
            "model": str(body.get("model")),
        }
        if not body.get("stream"):
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply}}
            return web.json_response(
                {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
            )
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        head["object"] = "chat.completion.chunk"
        deltas: list[dict[str, str]] = [
            {"role": "assistant", "content": ""},
            *({"content": t} for t in tokens),
            {},
        ]
        for number, delta in enumerate(deltas, 1):
            reason = "stop" if number == len(deltas) else None
            await _event(
                response, {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
            )
            await asyncio.sleep(TOKEN_S)
        if (body.get("stream_options") or {}).get("include_usage"):
            await _event(response, {**head, "choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response

    # --- text-to-speech ------------------------------------------------------------------------------

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        body = await _json(request)
        text = body.get("input")
        if not isinstance(text, str) or not text.strip() or len(text) > MAX_INPUT_CHARS:
            raise Refused(f"input must be a text of 1 to {MAX_INPUT_CHARS} characters.", param="input")
        answer_format = body.get("response_format", "wav")
        if answer_format not in ("pcm", "wav"):
            raise Refused(
                "response_format must be pcm or wav: no encoder is included.", param="response_format"
            )
        speed = body.get("speed", 1.0)
        if not isinstance(speed, int | float) or not 0.25 <= speed <= 4:
            raise Refused("speed must be a number from 0.25 to 4.", param="speed")
        voice = self._voice.pick_voice(str(body.get("voice", "")), text)
        kind = f"audio/pcm;rate={SPEECH_RATE_HZ}" if answer_format == "pcm" else "audio/wav"
        response = web.StreamResponse(headers={"Content-Type": kind})
        started = False
        resampler = StreamResampler(self._voice.RATE_HZ, SPEECH_RATE_HZ)
        for number, sentence in enumerate(self._voice.sentences(text)):
            pcm = await self._run(self._voice.speak, sentence, voice, float(speed))
            if not started:  # not before the first sentence: until then an error still has a status
                await response.prepare(request)
                started = True
                if answer_format == "wav":
                    await response.write(_endless_wav_header())
            await response.write(resampler.push((self._voice.PAUSE if number else b"") + pcm))
        if not started:
            raise Refused("input has nothing that can be spoken.", param="input")
        await response.write(resampler.flush())
        return response


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


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise Refused("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise Refused("The body is not a JSON object.")
    return body


async def _form(request: web.Request) -> Any:
    if not request.content_type.startswith("multipart/"):
        raise Refused("Send the audio as multipart/form-data.")
    try:
        return await request.post()
    except ValueError as error:
        raise Refused(f"The form can't be read: {error}") from None


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused("messages must be a list with at least one message.", param="messages")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Refused("Each message must be an object with a role.", param="messages")
    return messages


def _text_of(content: object) -> str:
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def read_wav(data: bytes) -> bytes:
    """PCM16 mono at 16 kHz from a WAV file of 16 bits, of any rate and number of channels.

    Raises:
        Refused: it is not such a file, or shorter than 0.1 s.
    """
    try:
        with wave.open(io.BytesIO(data)) as file:
            rate_hz, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            pcm = file.readframes(file.getnframes())
    except (wave.Error, EOFError):
        raise Refused(
            "The file is not a WAV file: only WAV with 16-bit PCM is understood here.", param="file"
        ) from None
    if width != 2 or not 4000 <= rate_hz <= 192_000:
        raise Refused("The WAV file must hold 16-bit PCM at 4 to 192 kHz.", param="file")
    if len(pcm) < rate_hz * channels * 2 // 10:
        raise Refused("Audio file is too short. Minimum audio length is 0.1 seconds.", param="file")
    if channels > 1:
        pcm = np.frombuffer(pcm, "<i2").reshape(-1, channels).mean(axis=1).astype("<i2").tobytes()
    resampler = StreamResampler(rate_hz, WHISPER_RATE_HZ)
    return resampler.push(pcm) + resampler.flush()


async def _event(response: web.StreamResponse, data: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n")


def _endless_wav_header() -> bytes:
    """A header for a stream of unknown length, as OpenAI sends it."""
    header = io.BytesIO()
    with wave.open(header, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SPEECH_RATE_HZ)
    data = bytearray(header.getvalue())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    return bytes(data)


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
    runner = web.AppRunner(backend.application(), access_log=None)
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
