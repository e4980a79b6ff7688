"""From settings to brains: the engine connections that all calls share, and a new brain for each call. Shell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from ari_app.audio.tones import two_tones
from ari_app.audio.vad import make_vad
from ari_app.backend import OfflineBackend
from ari_app.config import Config, Stage
from ari_app.dialog.announcer import Sentence
from ari_app.dialog.echo import Echo
from ari_app.dialog.known_speech import KnownSpeech, rendered
from ari_app.dialog.manner import PipelineSettings
from ari_app.dialog.pipeline import Pipeline
from ari_app.dialog.ports import Brain, TextToSpeech
from ari_app.dialog.sentences import pieces
from ari_app.errors import ConfigError, EngineError
from ari_app.models import LANGUAGE_LIST_MODELS
from ari_app.openai_api.chat import OpenAiChat
from ari_app.openai_api.client import StageSettings
from ari_app.openai_api.realtime import RealtimeBrain
from ari_app.openai_api.realtime_patience import Manners
from ari_app.openai_api.realtime_protocol import RealtimeSettings
from ari_app.openai_api.realtime_session import RealtimeClient
from ari_app.openai_api.realtime_tts import RealtimeTextToSpeech
from ari_app.openai_api.stt import OpenAiSpeechToText
from ari_app.openai_api.tts import OpenAiTextToSpeech
from ari_app.prices import Prices
from ari_app.settings import DEFAULT_SYSTEM_MESSAGE

logger = logging.getLogger(__name__)

RENDER_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Brains:
    """What makes the brain of a call."""

    make: Callable[[], Brain]
    warm: tuple[Callable[[], Awaitable[None]], ...] = ()
    """Open the connections that the next call will use."""
    goodbye: Sentence = Sentence()
    """What a caller hears who is still there when the application stops."""
    consent: Sentence = Sentence()
    """What callers hear first when they are recorded."""
    render: Callable[[str], Awaitable[bytes]] | None = None
    """Speaks a sentence, 8 kHz; raises EngineError. None: this mode has no voice of its own."""


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
    stages = config.stages(offline_url)
    try:
        make_vad(config.vad, config.vad_threshold_dbfs)
    except ImportError as error:
        message = (
            f"VAD=neural needs the package {error.name}: pip install 'ari_app[neural]', or set VAD=energy."
        )
        raise ConfigError(message) from None
    if config.mode == "pipeline":
        return await _build_pipeline(config, stages, stack)
    if config.mode == "realtime":
        stage = stages["rt"]
        listening = config.prices_of(stage.base_url, config.openai_rt_transcription_model, offline_url)
        return await _build_realtime(config, stage, listening, stack)
    return Brains(Echo)


# --- pipeline ----------------------------------------------------------------------------------------


async def _build_pipeline(config: Config, stages: dict[str, Stage], stack: AsyncExitStack) -> Brains:
    languages = (config.language,) if config.language else ()
    stt = OpenAiSpeechToText(
        _settings(stages["stt"]), languages=languages, language_field=config.stt_language_field
    )
    chat = OpenAiChat(_settings(stages["chat"]), max_tokens=config.openai_max_tokens)
    tts = await text_to_speech(config, stages["tts"], stack)
    for stage in (stt, chat, tts):
        stack.push_async_callback(stage.close)
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
        apology_pcm=await _render(tts, config.apology),
        hold_pcm=await _render(tts, config.hold),
    )
    goodbye, consent = await _announcements(config, tts)
    voice = KnownSpeech(tts, await _by_heart(tts, config.greeting))
    return Brains(
        lambda: Pipeline(stt, chat, voice, settings),
        (stt.warm, chat.warm, tts.warm),
        goodbye=goodbye,
        consent=consent,
        render=partial(rendered, tts),
    )


async def _announcements(config: Config, tts: TextToSpeech) -> tuple[Sentence, Sentence]:
    """The last words, and the first ones of a call that is recorded."""
    goodbye = Sentence(config.goodbye, await _render(tts, config.goodbye))
    if not (config.save_recordings and config.consent):
        return goodbye, Sentence()
    pcm = await _render(tts, config.consent)
    return goodbye, Sentence(config.consent, pcm)


async def _by_heart(tts: TextToSpeech, text: str) -> dict[str, bytes]:
    """The speech of each piece of a text, as far as it can be had now."""
    known: dict[str, bytes] = {}
    try:
        async with asyncio.timeout(RENDER_TIMEOUT_S):
            for piece in pieces(text):
                known[piece] = await rendered(tts, piece)
    except (EngineError, TimeoutError) as error:
        logger.warning("the greeting is not spoken in advance: %s", error or "no answer in time")
    return known


def _settings(stage: Stage) -> StageSettings:
    return StageSettings(stage.base_url, stage.model, stage.api_key, prices=stage.prices)


async def text_to_speech(
    config: Config, stage: Stage, stack: AsyncExitStack
) -> OpenAiTextToSpeech | RealtimeTextToSpeech:
    """The pipeline's voice; to be closed by the caller."""
    if config.speaks_over_realtime(stage.base_url):
        return RealtimeTextToSpeech(await _voice(config, stage, stack), stage.prices)
    return OpenAiTextToSpeech(
        _settings(stage), voice=config.openai_tts_voice, rate_hz=config.openai_tts_rate_hz
    )


# --- realtime ----------------------------------------------------------------------------------------


async def _build_realtime(
    config: Config, stage: Stage, listening: Prices | None, stack: AsyncExitStack
) -> Brains:
    """`listening`: prices of the model that writes down what callers say."""
    client = await stack.enter_async_context(
        RealtimeClient(stage.base_url, stage.api_key, realtime_settings(config, stage.model))
    )
    voice = RealtimeTextToSpeech(await _voice(config, stage, stack))
    stack.push_async_callback(voice.close)
    manners = Manners(
        greeting=config.greeting,
        vad=config.vad,
        vad_threshold_dbfs=config.vad_threshold_dbfs,
        min_speech_ms=config.barge_in_after_ms,
        protect_greeting=config.protect_greeting,
        apology_pcm=await _render(voice, config.apology),
        hold_pcm=await _render(voice, config.hold),
    )
    goodbye, consent = await _announcements(config, voice)
    return Brains(
        lambda: RealtimeBrain(client, manners, stage.prices, listening),
        goodbye=goodbye,
        consent=consent,
        render=partial(rendered, voice),
    )


def realtime_settings(config: Config, model: str) -> RealtimeSettings:
    """How a Realtime session is configured."""
    noise_reduction = config.openai_rt_noise_reduction
    languages = (config.language,) if config.language else ()
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
        languages=languages,
        speed=config.openai_rt_speed,
        max_output_tokens=config.openai_rt_max_tokens,
        truncation=config.openai_rt_truncation,
        reasoning_effort=config.openai_rt_reasoning,
    )


async def _voice(config: Config, stage: Stage, stack: AsyncExitStack) -> RealtimeClient:
    """Sessions that only speak; in the pipeline with speaking rate and audio format of the defaults."""
    settings = RealtimeSettings(
        model=stage.model,
        voice=config.openai_tts_voice,
        instructions="Read texts aloud.",
        audio_format=config.openai_rt_audio,
        speed=config.openai_rt_speed,
        max_output_tokens=4096,
    )
    client = RealtimeClient(stage.base_url, stage.api_key, settings, listens=False)
    return await stack.enter_async_context(client)


async def _render(tts: TextToSpeech, sentence: str) -> bytes:
    """A local sentence for the day the engines fail, spoken while they work; without them, a tone."""
    if not sentence:
        return b""
    try:
        async with asyncio.timeout(RENDER_TIMEOUT_S):
            return await rendered(tts, sentence)
    except (EngineError, TimeoutError) as error:
        if isinstance(error, EngineError) and error.permanent:
            raise  # a wrong key or model is for the operator to mend now, not for callers to find out
        logger.warning(
            "“%s” can't be spoken, a tone takes its place: %s", sentence, error or "no answer in time"
        )
        return two_tones()
