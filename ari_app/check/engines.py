"""The engines: each stage is asked for something small, timed, and its model looked up. Shell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime
from urllib.parse import urlsplit

from ari_app.audio.format import SAMPLE_BYTES
from ari_app.brains import realtime_settings, text_to_speech
from ari_app.check.findings import EXIT_CONFIG, EXIT_FAILED, Finding, Level
from ari_app.config import Config, Stage, is_openai
from ari_app.dialog.ports import Message
from ari_app.errors import EngineError, EngineRejected
from ari_app.models import RETIREMENTS
from ari_app.openai_api.chat import OpenAiChat
from ari_app.openai_api.client import StageClient, StageSettings
from ari_app.openai_api.realtime_session import RealtimeClient
from ari_app.openai_api.stt import OpenAiSpeechToText

TIMEOUT_S = 15.0
SLOW_MS = 2500.0
"""From here on callers hear the sentence that fills a pause (HOLD)."""
SENTENCE = "This is a test of the telephone."
NAMES = {"stt": "speech-to-text", "chat": "chat", "tts": "text-to-speech", "rt": "realtime"}
SETTINGS = {"stt": "OPENAI_STT", "chat": "OPENAI_CHAT", "tts": "OPENAI_TTS", "rt": "OPENAI_RT"}


@dataclass(frozen=True, slots=True)
class Model:
    """What the server's list says of a model."""

    shutdown: date | None = None


@dataclass(frozen=True, slots=True)
class Timed:
    """How a stage answered: what was timed, and whatever failed."""

    what: str = ""
    took_ms: float = 0.0
    error: EngineError | None = None


async def check_engines(
    config: Config, stages: Mapping[str, Stage], fallbacks: Mapping[str, Stage], today: date
) -> list[Finding]:
    """One line per stage of the mode, and per engine that stands in."""
    findings = await _check_stages(config, stages, today)
    if fallbacks:
        findings += await _check_stages(config, {**stages, **fallbacks}, today, fallbacks)
    return findings


async def _check_stages(
    config: Config, stages: Mapping[str, Stage], today: date, fallbacks: Mapping[str, Stage] | None = None
) -> list[Finding]:
    async with AsyncExitStack() as stack:
        timed = await _try_realtime(config, stages, stack) if "rt" in stages else {}
        if "tts" in stages:
            timed = await _try_pipeline(config, stages, stack)
        servers = {stage.base_url: stage for stage in stages.values()}
        listed = {url: await list_models(stage) for url, stage in servers.items()}
        own = config.stages("") if fallbacks is None else config.fallbacks("")
        offline = {name for name, stage in own.items() if not stage.base_url}
        return [
            stage_finding(
                *(name, stage, timed[name], listed[stage.base_url], today),
                offline=name in offline,
                fallback=fallbacks is not None,
            )
            for name, stage in (stages if fallbacks is None else fallbacks).items()
        ]


# --- asking ------------------------------------------------------------------------------------------


async def _try_pipeline(
    config: Config, stages: Mapping[str, Stage], stack: AsyncExitStack
) -> dict[str, Timed]:
    tts = await text_to_speech(config, stages["tts"], stack)
    stack.push_async_callback(tts.close)
    chat = OpenAiChat(_settings(stages["chat"]), max_tokens=config.openai_max_tokens)
    stack.push_async_callback(chat.close)
    stt = OpenAiSpeechToText(
        _settings(stages["stt"]),
        languages=config.language,
        language_field=config.stt_language_field(stages["stt"]),
    )
    stack.push_async_callback(stt.close)
    spoken = bytearray()
    rates: list[int] = []

    async def speak(first: Callable[[], None]) -> None:
        async for chunk in tts.speak(SENTENCE):
            first()
            spoken.extend(chunk.pcm)
            rates.append(chunk.rate_hz)

    async def answer(first: Callable[[], None]) -> None:
        async for _ in chat.reply([Message("user", "Say yes.")]):
            first()

    async def transcribe(first: Callable[[], None]) -> None:
        rate_hz = rates[0] if rates else 8000
        await stt.transcribe(bytes(spoken) or bytes(rate_hz * SAMPLE_BYTES), rate_hz)
        first()

    return {
        "tts": await _timed("text-to-speech", "first sound", speak),
        "chat": await _timed("chat", "first word", answer),
        "stt": await _timed("speech-to-text", "transcript", transcribe),
    }


async def _try_realtime(
    config: Config, stages: Mapping[str, Stage], stack: AsyncExitStack
) -> dict[str, Timed]:
    stage = stages["rt"]
    client = RealtimeClient(stage.base_url, stage.api_key, realtime_settings(config, stage.model))
    await stack.enter_async_context(client)

    async def open_session(first: Callable[[], None]) -> None:
        session = await client.open()
        first()
        await session.close()

    return {"rt": await _timed("realtime", "session", open_session)}


async def _timed(name: str, what: str, ask: Callable[[Callable[[], None]], Awaitable[None]]) -> Timed:
    """Time until `ask` calls what it is given for the first time."""
    started = time.monotonic()
    marks: list[float] = []
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await ask(lambda: marks.append(time.monotonic()))
    except TimeoutError:
        return Timed(what, error=EngineError(name, f"no answer within {TIMEOUT_S:g} s"))
    except EngineError as error:
        return Timed(what, error=error)
    if not marks:
        return Timed(what, error=EngineError(name, "the answer is empty"))
    return Timed(what, (marks[0] - started) * 1000)


async def list_models(stage: Stage) -> dict[str, Model] | None:
    """What the server offers; None when it does not tell."""
    client = StageClient("models", _settings(stage))
    try:
        with client.errors():
            async with asyncio.timeout(TIMEOUT_S):
                page = await client.openai.models.list()
                return {
                    model.id: Model(shutdown_date(getattr(model, "shutdown_date", None)))
                    for model in page.data
                }
    except (EngineError, TimeoutError, AttributeError, TypeError):
        return None  # a compatible server's list may be anything
    finally:
        await client.close()


def shutdown_date(value: object) -> date | None:
    """The list's optional field, as seconds since 1970 or as text that begins with YYYY-MM-DD."""
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC).date()
        return date.fromisoformat(value[:10]) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None


def _settings(stage: Stage) -> StageSettings:
    return StageSettings(stage.base_url, stage.model, stage.api_key)


# --- judging -----------------------------------------------------------------------------------------


def stage_finding(
    name: str,
    stage: Stage,
    timed: Timed,
    listed: Mapping[str, Model] | None,
    today: date,
    *,
    offline: bool = False,
    fallback: bool = False,
) -> Finding:
    """The verdict on one stage: it answers, in time, with a model that lives on."""
    subject, setting = NAMES[name], SETTINGS[name]
    if fallback:
        subject, setting = f"{subject}, fallback", f"{setting}_FALLBACK"
    model_setting = "OPENAI_MODEL" if setting == "OPENAI_CHAT" else f"{setting}_MODEL"
    figures: dict[str, float | str] = {"model": stage.model, "server": stage.base_url}
    if timed.error is not None:
        return _failure(subject, setting, model_setting, stage, timed.error, listed, figures)
    figures["latency_ms"] = round(timed.took_ms)
    who = "the embedded offline backend" if offline else f"{stage.model} at {urlsplit(stage.base_url).netloc}"
    text = f"{who}: {timed.what} after {timed.took_ms:.0f} ms"
    ends = _end(stage, listed)
    if ends is not None:
        day, successor = ends
        figures["shutdown_date"] = day.isoformat()
        remedy = f"set {model_setting}={successor}" if successor else f"set {model_setting} to another model"
        when = f"is shut down on {day}" if day > today else f"was to be shut down on {day}"
        return Finding(subject, Level.WARNING, f"{text}; the model {when}", remedy, figures)
    if timed.took_ms > SLOW_MS:
        remedy = "callers wait that long: use a faster model or a nearer server"
        return Finding(subject, Level.WARNING, text, remedy, figures)
    return Finding(subject, Level.OK, text, figures=figures)


def _end(stage: Stage, listed: Mapping[str, Model] | None) -> tuple[date, str] | None:
    """The last day of the model and its successor, by the server's word or else by our table of OpenAI's."""
    known = RETIREMENTS.get(stage.model) if is_openai(stage.base_url) else None
    model = (listed or {}).get(stage.model)
    day = model.shutdown if model else None
    if day is None and known:
        day = date.fromisoformat(known.date)
    return (day, known.successor if known else "") if day else None


def _failure(
    subject: str,
    setting: str,
    model_setting: str,
    stage: Stage,
    error: EngineError,
    listed: Mapping[str, Model] | None,
    figures: Mapping[str, float | str],
) -> Finding:
    """The verdict on a stage that did not answer, with the setting that may be wrong."""
    ends = _end(stage, listed)
    unknown_model = bool(listed) and stage.model not in (listed or {})
    status = error.status if isinstance(error, EngineRejected) else None
    if unknown_model or status == 404:
        successor = ends[1] if ends else ""
        remedy = f"set {model_setting} to {successor or 'a model that this server has'}"
    elif status in (401, 403):
        remedy = (
            f"correct OPENAI_API_KEY (or {setting}_API_KEY where that is set), or its rights in the account"
        )
    elif not isinstance(error, EngineRejected):
        remedy = f"check OPENAI_BASE_URL (or {setting}_BASE_URL), the network, and that the server is up"
    elif error.permanent:
        remedy = f"see to the account; then look at {model_setting} and the other settings of {subject}"
    else:
        remedy = "try again; if it lasts, see the status page or log of that server"
    text = error.message
    server = urlsplit(stage.base_url).netloc
    if server not in text:
        text = f"{stage.model} at {server}: {text}"
    if ends is not None:
        text += f" (the model's last day: {ends[0]})"
    code = EXIT_CONFIG if isinstance(error, EngineRejected) and error.permanent else EXIT_FAILED
    return Finding(subject, Level.FAILED, text, remedy, figures, code)
