"""From settings to brains: the engine connections that all calls share, and a new brain for each call. Shell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from ari_app.ari.instances import state_directory
from ari_app.audio.vad import make_vad
from ari_app.backend import OfflineBackend
from ari_app.config import Config, Stage
from ari_app.dialog.announcer import Script
from ari_app.dialog.echo import Echo
from ari_app.dialog.engines import AnyChat, AnySpeechToText, AnyTextToSpeech, Engines
from ari_app.dialog.idle import Limits
from ari_app.dialog.known_speech import KnownSpeech, rendered
from ari_app.dialog.manner import PipelineSettings
from ari_app.dialog.phrasebook import Phrasebook, texts_for
from ari_app.dialog.pipeline import Pipeline
from ari_app.dialog.ports import Brain, TextToSpeech
from ari_app.dialog.sentences import pieces
from ari_app.errors import ConfigError
from ari_app.models import LANGUAGE_LIST_MODELS
from ari_app.openai_api.chat import OpenAiChat
from ari_app.openai_api.client import StageSettings
from ari_app.openai_api.realtime import RealtimeBrain
from ari_app.openai_api.realtime_patience import Manners
from ari_app.openai_api.realtime_protocol import RealtimeSettings
from ari_app.openai_api.realtime_servers import RealtimeServers
from ari_app.openai_api.realtime_session import RealtimeClient
from ari_app.openai_api.realtime_tts import RealtimeTextToSpeech
from ari_app.openai_api.stt import OpenAiSpeechToText
from ari_app.openai_api.tts import OpenAiTextToSpeech
from ari_app.rehearsal import KeptSpeech, Render, Shelf, rehearse_in_time, rehearse_the_rest
from ari_app.settings import DEFAULT_SYSTEM_MESSAGE

logger = logging.getLogger(__name__)

DEFAULT_LANGUAGES = ("en", "es")
"""As DEFAULT_SYSTEM_MESSAGE has it."""


@dataclass(frozen=True, slots=True)
class Brains:
    """What makes the brain of a call."""

    make: Callable[[], Brain]
    warm: tuple[Callable[[], Awaitable[None]], ...] = ()
    """Open the connections that the next call will use."""
    script: Script = Script()
    """What the application itself says."""
    render: Render | None = None
    """None: this mode has no voice of its own."""
    engines: tuple[Engines[Any], ...] = ()
    """Who is asked, stage by stage."""


Servers = Mapping[str, list[Stage]]
"""By stage, in the order in which they are asked."""
BuildBrains = Callable[[Config, AsyncExitStack], Awaitable[Brains]]


async def build_brains(config: Config, stack: AsyncExitStack) -> Brains:
    """Connect what the mode needs; `stack` takes it down.

    Raises:
        EngineError: a key, model or voice is wrong, so that no call could be held.
        SetupError: the offline backend can't run.
    """
    offline_url = ""
    if config.needs_offline_backend:
        logger.info("no key and no engine server is set: starting the embedded offline backend")
        offline_url = (await stack.enter_async_context(OfflineBackend())).url
        if config.system_message == DEFAULT_SYSTEM_MESSAGE:
            logger.warning("its chat knows only the facts in SYSTEM_MESSAGE, and there are none")
    fallbacks = config.fallbacks(offline_url)
    servers = {
        name: [stage, fallbacks[name]] if name in fallbacks else [stage]
        for name, stage in config.stages(offline_url).items()
    }
    try:
        make_vad(config.vad, config.vad_threshold_dbfs)
    except ImportError as error:
        message = (
            f"VAD=neural needs the package {error.name}: pip install 'ari_app[neural]', or set VAD=energy."
        )
        raise ConfigError(message) from None
    if config.mode == "pipeline":
        return await _build_pipeline(config, servers, stack)
    if config.mode == "realtime":
        return await _build_realtime(config, servers["rt"], offline_url, stack)
    return Brains(Echo)


# --- pipeline ----------------------------------------------------------------------------------------


async def _build_pipeline(config: Config, servers: Servers, stack: AsyncExitStack) -> Brains:
    ears = [
        OpenAiSpeechToText(
            _settings(stage), languages=config.language, language_field=config.stt_language_field(stage)
        )
        for stage in servers["stt"]
    ]
    chats = [OpenAiChat(_settings(stage), max_tokens=config.openai_max_tokens) for stage in servers["chat"]]
    voices = [await text_to_speech(config, stage, stack) for stage in servers["tts"]]
    for engine in (*ears, *chats, *voices):
        stack.push_async_callback(engine.close)
    stt, chat, tts = AnySpeechToText(*ears), AnyChat(*chats), AnyTextToSpeech(*voices)
    script = await _script(config, voices, servers["tts"], stack)
    settings = PipelineSettings(
        system_message=config.system_message,
        greeting=config.greeting or None,
        silence_duration_ms=config.silence_duration_ms,
        speculate_after_ms=config.speculate_after_ms,
        finished_silence_ms=config.finished_silence_ms,
        min_speech_ms=config.barge_in_after_ms,
        interrupting_words=config.barge_in_words,
        protect_greeting=config.protect_greeting,
        vad=config.vad,
        vad_threshold_dbfs=config.vad_threshold_dbfs,
        phrases=script.phrases,
    )
    voice = KnownSpeech(tts, script.phrases.by_heart)
    return Brains(
        lambda: Pipeline(stt, chat, voice, settings),
        (ears[0].warm, chats[0].warm, voices[0].warm),
        script=script,
        render=partial(rendered, tts),
        engines=(stt.engines, chat.engines, tts.engines),
    )


async def _script(
    config: Config, voices: Sequence[TextToSpeech], stages: Sequence[Stage], stack: AsyncExitStack
) -> Script:
    """What the application says itself; the first language now, the others while it runs.

    Raises:
        EngineError: a key, model or voice is wrong.
    """
    consent = config.consent if config.save_recordings else ""
    own = {purpose: getattr(config, purpose) for purpose in ("apology", "regret", "hold", "idle", "goodbye")}
    first, *others = config.language or DEFAULT_LANGUAGES
    phrases = Phrasebook(texts_for((first, *others), own), also=(consent, *pieces(config.greeting)))
    kept = [
        KeptSpeech(*pair) for pair in zip(voices, (_shelf(config, stage) for stage in stages), strict=True)
    ]
    render = partial(rendered, AnyTextToSpeech(*kept))
    await rehearse_in_time(phrases, phrases.missing(first), render)
    task = asyncio.create_task(rehearse_the_rest(phrases, render), name="rehearse")
    stack.push_async_callback(_cancelled, task)
    return Script(phrases, consent, Limits(config.idle_seconds, config.max_call_seconds))


def _shelf(config: Config, stage: Stage) -> Shelf:
    """One for each voice: what a fallback spoke is not the primary's tomorrow."""
    voice = stage.voice or config.openai_tts_voice
    return Shelf(state_directory() / "speech", (stage.base_url, stage.model, voice))


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _settings(stage: Stage) -> StageSettings:
    return StageSettings(stage.base_url, stage.model, stage.api_key, prices=stage.prices)


async def text_to_speech(
    config: Config, stage: Stage, stack: AsyncExitStack
) -> OpenAiTextToSpeech | RealtimeTextToSpeech:
    """The pipeline's voice; to be closed by the caller."""
    if config.speaks_over_realtime(stage.base_url):
        return RealtimeTextToSpeech(await _voice(config, stage, stack), stage.prices)
    return OpenAiTextToSpeech(
        _settings(stage), voice=stage.voice or config.openai_tts_voice, rate_hz=config.openai_tts_rate_hz
    )


# --- realtime ----------------------------------------------------------------------------------------


async def _build_realtime(
    config: Config, stages: list[Stage], offline_url: str, stack: AsyncExitStack
) -> Brains:
    clients = [
        RealtimeClient(
            stage.base_url,
            stage.api_key,
            realtime_settings(config, stage.model),
            prices=stage.prices,
            listening_prices=config.prices_of(
                stage.base_url, config.openai_rt_transcription_model, offline_url
            ),
        )
        for stage in stages
    ]
    for client in clients:
        await stack.enter_async_context(client)
    voices = [RealtimeTextToSpeech(await _voice(config, stage, stack), stage.prices) for stage in stages]
    for voice in voices:
        stack.push_async_callback(voice.close)
    servers, tts = RealtimeServers(*clients), AnyTextToSpeech(*voices)
    script = await _script(config, voices, stages, stack)
    manners = Manners(
        greeting=config.greeting,
        vad=config.vad,
        vad_threshold_dbfs=config.vad_threshold_dbfs,
        min_speech_ms=config.barge_in_after_ms,
        protect_greeting=config.protect_greeting,
        phrases=script.phrases,
    )
    return Brains(
        lambda: RealtimeBrain(servers, manners),
        script=script,
        render=partial(rendered, tts),
        engines=(servers.engines,),
    )


def realtime_settings(config: Config, model: str) -> RealtimeSettings:
    """How a Realtime session is configured."""
    noise_reduction = config.openai_rt_noise_reduction
    return RealtimeSettings(
        model=model,
        voice=config.openai_tts_voice,
        instructions=config.system_message,
        audio_format=config.openai_rt_audio,
        turn_detection=config.openai_rt_turn_detection,
        vad_threshold=config.vad_threshold,
        prefix_padding_ms=config.prefix_padding_ms,
        silence_duration_ms=config.silence_duration_ms,
        eagerness=config.openai_rt_eagerness,
        idle_timeout_ms=config.openai_rt_idle_timeout_ms or None,
        barge_in=config.openai_rt_barge_in,
        noise_reduction=None if noise_reduction == "off" else noise_reduction,
        transcription_model=config.openai_rt_transcription_model,
        transcription_field="languages"
        if config.openai_rt_transcription_model in LANGUAGE_LIST_MODELS
        else "language",
        languages=config.language,
        speed=config.openai_rt_speed,
        max_output_tokens=config.openai_rt_max_tokens,
        truncation=config.openai_rt_truncation,
        reasoning_effort=config.openai_rt_reasoning,
    )


async def _voice(config: Config, stage: Stage, stack: AsyncExitStack) -> RealtimeClient:
    """Sessions that only speak; in the pipeline with speaking rate and audio format of the defaults."""
    settings = RealtimeSettings(
        model=stage.model,
        voice=stage.voice or config.openai_tts_voice,
        instructions="Read texts aloud.",
        audio_format=config.openai_rt_audio,
        speed=config.openai_rt_speed,
        max_output_tokens=4096,
    )
    client = RealtimeClient(stage.base_url, stage.api_key, settings, listens=False)
    return await stack.enter_async_context(client)
