"""From flags, environment and `.env` to one checked `Config`. Core: the environment is an argument.

Precedence: flag, then environment, then `.env`, then default. All faults are reported in one `ConfigError`.
The settings themselves stand in `settings.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from ari_app.ari.streams import calls_in, streams_in
from ari_app.errors import ConfigError
from ari_app.guard import Rules
from ari_app.models import (
    ANY_SPEECH_MODEL,
    LANGUAGE_LIST_MODELS,
    PRICES,
    REALTIME_VOICE_MODEL,
    RETIREMENTS,
    SPEECH_ENDPOINT_MODELS,
)
from ari_app.parsers import OFFLINE, port_range
from ari_app.settings import OTHER_NAMES, SETTINGS, Setting, incomplete_fallbacks

OPENAI_URL = "https://api.openai.com/v1"
STAGES: Mapping[str, tuple[str, ...]] = {"pipeline": ("stt", "chat", "tts"), "realtime": ("rt",), "echo": ()}


@dataclass(frozen=True, slots=True)
class Stage:
    """Where one engine stage is reached."""

    base_url: str
    api_key: str = field(repr=False)
    model: str
    voice: str = ""
    """Of a text-to-speech that stands in; empty: the usual one."""
    prices: Mapping[str, float] | None = None
    """What the model costs, where that is known."""


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, parsed. Secrets are left out of `repr`."""

    ari_url: str
    ari_username: str
    ari_password: str = field(repr=False)
    ari_app: str
    rtp_host: str
    rtp_ports: tuple[int, int] | None
    max_calls: int
    max_lag_ms: int
    dial_endpoint: str
    caller_id: str
    country_code: str
    dial_allow: tuple[str, ...]
    dial_deny: tuple[str, ...]
    dial_extension_digits: int
    dial_per_minute: int
    dial_concurrent: int
    dial_daily_minutes: int
    ring_timeout: int
    max_call_seconds: int
    no_audio_seconds: int
    mode: str
    system_message: str
    greeting: str
    silence_duration_ms: int
    finished_silence_ms: int
    speculate_after_ms: int
    barge_in_after_ms: int
    barge_in_words: int
    protect_greeting: bool
    vad: str
    vad_threshold_dbfs: float
    language: tuple[str, ...]
    apology: str
    regret: str
    hold: str
    goodbye: str
    idle: str
    idle_seconds: int
    on_failure: str
    handover_keys: str
    openai_api_key: str = field(repr=False)
    openai_base_url: str
    openai_stt_base_url: str
    openai_stt_api_key: str = field(repr=False)
    openai_stt_model: str
    openai_chat_base_url: str
    openai_chat_api_key: str = field(repr=False)
    openai_model: str
    openai_max_tokens: int
    openai_tts_base_url: str
    openai_tts_api_key: str = field(repr=False)
    openai_stt_fallback_base_url: str
    openai_stt_fallback_api_key: str = field(repr=False)
    openai_stt_fallback_model: str
    openai_chat_fallback_base_url: str
    openai_chat_fallback_api_key: str = field(repr=False)
    openai_chat_fallback_model: str
    openai_tts_fallback_base_url: str
    openai_tts_fallback_api_key: str = field(repr=False)
    openai_tts_fallback_model: str
    openai_tts_fallback_voice: str
    openai_rt_fallback_base_url: str
    openai_rt_fallback_api_key: str = field(repr=False)
    openai_rt_fallback_model: str
    openai_tts_api: str
    openai_tts_model: str
    openai_tts_voice: str
    openai_tts_rate_hz: int
    openai_rt_base_url: str
    openai_rt_api_key: str = field(repr=False)
    openai_rt_model: str
    openai_rt_audio: Literal["pcm", "pcmu"]
    openai_rt_transcription_model: str
    openai_rt_turn_detection: Literal["server_vad", "semantic_vad"]
    vad_threshold: float
    prefix_padding_ms: int
    openai_rt_eagerness: Literal["auto", "low", "medium", "high"]
    openai_rt_idle_timeout_ms: int
    openai_rt_barge_in: Literal["server", "local"]
    openai_rt_noise_reduction: Literal["near_field", "far_field", "off"]
    openai_rt_speed: float
    openai_rt_max_tokens: int
    openai_rt_truncation: Literal["auto", "disabled"] | float
    openai_rt_reasoning: str
    save_recordings: bool
    recordings_dir: str
    recordings_keep_days: int
    recordings_max_mb: int
    recordings_min_free_mb: int
    recordings_key: str
    consent: str
    debug: bool
    log_format: Literal["auto", "text", "json"]
    web_port: int
    web_host: str
    web_names: tuple[str, ...]
    api_token: str
    browser_password: str
    browser_extension: str
    drain_seconds: int
    prices_file: str
    prices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The operator's own, by model: the contents of PRICES_FILE."""

    @property
    def dial_rules(self) -> Rules:
        """What may be called, and how much."""
        return Rules(
            allow=self.dial_allow,
            deny=self.dial_deny,
            country_code=self.country_code,
            extension_digits=self.dial_extension_digits,
            per_minute=self.dial_per_minute,
            concurrent=self.dial_concurrent,
            daily_minutes=self.dial_daily_minutes,
        )

    @property
    def needs_offline_backend(self) -> bool:
        """True when a stage has neither a server of its own nor a key for OpenAI, or falls back on the backend."""
        stages = (*self.stages("").values(), *self.fallbacks("").values())
        return any(not stage.base_url for stage in stages)

    def stages(self, offline_url: str) -> dict[str, Stage]:
        """The engine stages of the mode; `offline_url` serves those that have neither a server nor a key."""
        wanted = {
            "stt": (self.openai_stt_base_url, self.openai_stt_api_key, self.openai_stt_model),
            "chat": (self.openai_chat_base_url, self.openai_chat_api_key, self.openai_model),
            "tts": (self.openai_tts_base_url, self.openai_tts_api_key, self.openai_tts_model),
            "rt": (self.openai_rt_base_url, self.openai_rt_api_key, self.openai_rt_model),
        }
        stages = {}
        for name in STAGES[self.mode]:
            own_url, own_key, model = wanted[name]
            # The common key goes only to the common server: a stage with a server of its own has its own key.
            key = own_key or ("" if own_url else self.openai_api_key)
            url = own_url or self.openai_base_url or (OPENAI_URL if key else offline_url)
            stages[name] = Stage(url, key, model)
        if "tts" in stages and not self.openai_tts_model:
            over_realtime = self.speaks_over_realtime(stages["tts"].base_url)
            stages["tts"] = replace(
                stages["tts"], model=REALTIME_VOICE_MODEL if over_realtime else ANY_SPEECH_MODEL
            )
        return {
            name: replace(stage, prices=self.prices_of(stage.base_url, stage.model, offline_url))
            for name, stage in stages.items()
        }

    def prices_of(self, base_url: str, model: str, offline_url: str) -> Mapping[str, float] | None:
        """What a model costs at a server; None: that is not known. The embedded backend is free."""
        if base_url == offline_url:
            return {}
        return self.prices.get(model) or (PRICES.get(model) if is_openai(base_url) else None)

    def fallbacks(self, offline_url: str) -> dict[str, Stage]:
        """The engines that stand in where a stage's first one fails; stages without one are left out."""
        stages = {}
        for name in STAGES[self.mode]:
            url, key, model = (
                getattr(self, f"openai_{name}_fallback_{what}") for what in ("base_url", "api_key", "model")
            )
            if url == OFFLINE:
                stages[name] = Stage(offline_url, "", model or ANY_SPEECH_MODEL)
            elif url:
                stages[name] = Stage(url, key, model)
        if "tts" in stages:
            stages["tts"] = replace(stages["tts"], voice=self.openai_tts_fallback_voice)
        return {
            name: replace(stage, prices=self.prices_of(stage.base_url, stage.model, offline_url))
            for name, stage in stages.items()
        }

    def speaks_over_realtime(self, tts_url: str) -> bool:
        """True when text-to-speech goes over a Realtime session, False for `POST /audio/speech`."""
        if self.openai_tts_api == "auto":
            return is_openai(tts_url) and self.openai_tts_model not in SPEECH_ENDPOINT_MODELS
        return self.openai_tts_api == "realtime"

    def stt_language_field(self, stage: Stage) -> Literal["language", "languages"]:
        """OpenAI's current speech-to-text models take a list; older ones and other servers take one language."""
        listed = stage.base_url == OPENAI_URL and stage.model in LANGUAGE_LIST_MODELS
        return "languages" if listed else "language"

    def warnings(self) -> list[str]:
        """Sentences about models that OpenAI serves today and will not for long."""
        lines = []
        for kind, stages in (("", self.stages("")), ("_FALLBACK", self.fallbacks(""))):
            for name, stage in stages.items():
                chat = name == "chat" and not kind
                setting = "OPENAI_MODEL" if chat else f"OPENAI_{name.upper()}{kind}_MODEL"
                retired = RETIREMENTS.get(stage.model)
                if retired and is_openai(stage.base_url):
                    lines.append(
                        f"{setting}={stage.model}: OpenAI shuts this model down on {retired.date}; "
                        f"its successor is {retired.successor}."
                    )
        return lines


def load(
    flags: Mapping[str, str | None],
    env: Mapping[str, str],
    dotenv: Mapping[str, str | None],
    files: Mapping[str, str] | None = None,
) -> Config:
    """Build the configuration from flags (by environment name), the environment and `.env`.

    An empty value in the environment or in `.env` counts as not set, as compose files pass unset variables.

    Args:
        files: secrets by setting, read from the files that `secret_paths` names.

    Raises:
        ConfigError: one sentence per faulty setting.
    """
    values: dict[str, Any] = {}
    faults = []
    for setting in SETTINGS:
        raw, source = _lookup(setting, flags, env, dotenv)
        if files and setting.env in files:
            if raw:
                faults.append(f"{setting.env} and {setting.env}_FILE are both set: leave one of them empty.")
            raw, source = files[setting.env], f"from {setting.env}_FILE"
        try:
            if any(ch in raw for ch in "\r\0") or ("\n" in raw and setting.env != "SYSTEM_MESSAGE"):
                raise ValueError("must be one line")
            values[setting.key] = setting.parse(raw)
        except ValueError as fault:
            shown = "" if setting.secret else f" '{raw}'"
            faults.append(f"{setting.env}{shown} ({source}) {fault}.")
    if faults := faults or incomplete_fallbacks(values):
        raise ConfigError(" ".join(faults))
    asterisk_ports = env.get("SIP_RTP_PORTS") or dotenv.get("SIP_RTP_PORTS") or ""
    values["max_calls"] = _room_for_calls(asterisk_ports, values["max_calls"])
    if values["mode"] == "realtime" and flags.get("OPENAI_MODEL"):
        values["openai_rt_model"] = values["openai_model"]
    return Config(**values)


def _room_for_calls(asterisk_ports: str, at_most: int) -> int:
    """How many calls Asterisk's RTP ports carry; render.py complains about a range that is none."""
    try:
        ports = port_range(asterisk_ports)
    except ValueError:
        ports = None
    return at_most if ports is None else max(1, min(at_most, calls_in(streams_in(*map(str, ports)))))


def _lookup(
    setting: Setting,
    flags: Mapping[str, str | None],
    env: Mapping[str, str],
    dotenv: Mapping[str, str | None],
) -> tuple[str, str]:
    flag_value = flags.get(setting.env)
    if flag_value is not None:
        return flag_value, f"from {setting.flag}"
    for source, name in ((env, "from the environment"), (dotenv, "from .env")):
        value = source.get(setting.env)
        if value:
            return value, name
    return setting.default, "default"


def secret_paths(env: Mapping[str, str], dotenv: Mapping[str, str | None]) -> dict[str, str]:
    """Paths of files that hold a secret, by setting: any secret NAME may be given as NAME_FILE instead."""
    names = [setting.env for setting in SETTINGS if setting.secret]
    paths = {name: env.get(f"{name}_FILE") or dotenv.get(f"{name}_FILE") or "" for name in names}
    return {name: path for name, path in paths.items() if path}


COLLECTOR_SETTINGS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def holds_secret(dotenv: Mapping[str, str | None]) -> bool:
    """True when `.env` gives a secret itself, of ours or of the trunk."""
    return any(dotenv.get(name) for name in ("SIP_PASSWORD", *(s.env for s in SETTINGS if s.secret)))


NEAR_MISS = 0.88
"""Likeness at which a name was meant to be another, by difflib."""


def unknown_names(dotenv: Iterable[str], environment: Iterable[str] = ()) -> list[str]:
    """A sentence for each name that nobody reads, with the nearest one that somebody does.

    Args:
        dotenv: the names in `.env`: each of them should be known.
        environment: those of the environment, most of which are not for us: only a near miss is told.
    """
    secrets = {f"{setting.env}_FILE" for setting in SETTINGS if setting.secret}
    known = {setting.env for setting in SETTINGS} | secrets | OTHER_NAMES
    lines = []
    for name in dotenv:
        if name in known or name.startswith(("COMPOSE_", "DOCKER_")):
            continue
        nearest = difflib.get_close_matches(name.upper(), sorted(known), n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "delete the line, or see docs/configuration.md."
        lines.append(f"{name} in .env is no setting: {hint}")
    for name in sorted({*environment} - {*dotenv} - known):
        # Those of OpenTelemetry are many, and may be for others.
        if name.startswith("OTEL_"):
            continue
        if nearest := difflib.get_close_matches(name, sorted(known), n=1, cutoff=NEAR_MISS):
            lines.append(f"{name} in the environment is no setting: did you mean {nearest[0]}?")
    return lines


def collector_setting(env: Mapping[str, str]) -> str:
    """The standard variable that names a collector for spans; "" where there is none, or none is wanted.

    Raises:
        ConfigError: it names one that we can't reach.
    """
    asked = [name for name in COLLECTOR_SETTINGS if env.get(name)]
    exporters = (env.get("OTEL_TRACES_EXPORTER") or "otlp").split(",")
    disabled = (env.get("OTEL_SDK_DISABLED") or "").lower() == "true"
    if not asked or disabled or "otlp" not in exporters:
        return ""
    if urlsplit(env[asked[0]]).scheme not in ("http", "https"):
        raise ConfigError(f"{asked[0]} must be a URL such as http://127.0.0.1:4318.")
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := env.get(name):
            if protocol != "http/protobuf":
                raise ConfigError(
                    f"{name}={protocol}: spans are sent by http/protobuf only; set that, and the collector's "
                    f"port for it in {asked[0]}, usually 4318."
                )
            break
    return asked[0]


def require_ari(config: Config) -> None:
    """Check what `serve` and `dial` can't do without.

    Raises:
        ConfigError: naming the setting and the remedy.
    """
    if not config.ari_password:
        raise ConfigError(
            "ARI_PASSWORD is not set: put the password of the ARI user "
            f"'{config.ari_username}' (ari.conf of your Asterisk) into the environment or .env, "
            "or the path of a file that holds it into ARI_PASSWORD_FILE."
        )


def require_keys(config: Config) -> None:
    """Check that a stage that goes to OpenAI itself has a key.

    Raises:
        ConfigError: naming the setting and the remedy.
    """
    for name, stage in config.stages("").items():
        if is_openai(stage.base_url) and not stage.api_key:
            own = f"OPENAI_{name.upper()}"
            setting = f"{own}_API_KEY" if getattr(config, f"{own}_BASE_URL".lower()) else "OPENAI_API_KEY"
            raise ConfigError(
                f"{setting} is not set but the {name} stage goes to OpenAI: set the key, or leave the base "
                "URL empty to use the embedded offline backend."
            )


def is_openai(base_url: str) -> bool:
    """True for OpenAI's own service, its regional hosts included."""
    host = urlsplit(base_url).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")
