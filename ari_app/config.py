"""Every setting in one table: name, flag, default, meaning. Core: the environment is an argument.

Precedence: flag, then environment, then `.env`, then default. All faults are reported in one `ConfigError`.
This is the only file that knows model names, because OpenAI retires them on published dates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from ari_app import parsers
from ari_app.errors import ConfigError

DEFAULT_SYSTEM_MESSAGE = (
    "You are a helpful assistant on a phone call. The caller may speak English or Spanish: "
    "detect the language first and always answer in it. "
    "Keep answers short and easy to understand over the phone."
)

OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class Retirement:
    """A model that OpenAI shuts down: the day it stops and what takes its place."""

    date: str
    successor: str


# https://developers.openai.com/api/docs/deprecations, as read in November 2026.
RETIREMENTS: Mapping[str, Retirement] = {
    "gpt-4o": Retirement("2027-01-14", "gpt-6-luna"),
    "gpt-4o-mini": Retirement("2027-01-14", "gpt-6-luna"),
    "gpt-4.1": Retirement("2027-01-14", "gpt-6-luna"),
    "gpt-4.1-mini": Retirement("2027-01-14", "gpt-6-luna"),
    "gpt-5": Retirement("2026-12-11", "gpt-6-luna"),
    "gpt-5-mini": Retirement("2026-12-11", "gpt-6-luna"),
    "gpt-5-nano": Retirement("2026-12-11", "gpt-6-luna"),
    "whisper-1": Retirement("2027-02-26", "gpt-transcribe"),
    "gpt-4o-transcribe": Retirement("2027-02-26", "gpt-transcribe"),
    "gpt-4o-mini-transcribe": Retirement("2027-02-26", "gpt-transcribe"),
    "tts-1": Retirement("2027-01-06", "a text-to-speech server of your own at OPENAI_TTS_BASE_URL"),
    "tts-1-hd": Retirement("2027-01-06", "a text-to-speech server of your own at OPENAI_TTS_BASE_URL"),
    "gpt-4o-mini-tts": Retirement("2027-01-06", "a text-to-speech server of your own at OPENAI_TTS_BASE_URL"),
}


# --- the settings ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its environment name, its flag if it has one, default, parser and meaning."""

    env: str
    default: str
    meaning: str
    parse: parsers.Parser = parsers.text
    flag: str | None = None
    secret: bool = False

    @property
    def key(self) -> str:
        """Attribute name in `Config`."""
        return self.env.lower()

    @property
    def switch(self) -> bool:
        """True for a yes-or-no setting, whose flag takes no value."""
        return self.parse is parsers.switch


SETTINGS: tuple[Setting, ...] = (
    # Asterisk
    Setting(
        "ARI_URL",
        "http://127.0.0.1:8088",
        "Where Asterisk's HTTP server is reached",
        parsers.url,
        "--ari-url",
    ),
    Setting("ARI_USERNAME", "ari_app", "ARI user (a section of ari.conf)", parsers.name, "--ari-username"),
    Setting("ARI_PASSWORD", "", "Password of that user", secret=True),
    Setting(
        "ARI_APP",
        "ari_app",
        "Stasis application name of the server, as in Stasis(ari_app)",
        parsers.name,
        "--app",
    ),
    # Audio between Asterisk and the application
    Setting(
        "RTP_HOST", "127.0.0.1", "Our address for RTP, as Asterisk reaches it", parsers.address, "--rtp-host"
    ),
    Setting(
        "RTP_PORTS", "", "Our UDP ports for RTP, e.g. 40000-40999; empty: any free port", parsers.port_range
    ),
    Setting("MAX_CALLS", "20", "Calls at the same time; more are refused", parsers.number(1, 1000, "calls")),
    # Outbound calls
    Setting(
        "DIAL_ENDPOINT",
        "PJSIP/{number}@outbound",
        "Dial string for outbound calls",
        parsers.dial_endpoint,
        "--endpoint",
    ),
    Setting(
        "CALLER_ID",
        "",
        'Caller id of outbound calls, e.g. "Office" <+15551234567>',
        parsers.text,
        "--caller-id",
    ),
    Setting(
        "RING_TIMEOUT",
        "45",
        "Give up ringing after this many seconds",
        parsers.number(1, 300, "s"),
        "--ring-timeout",
    ),
    Setting(
        "MAX_CALL_SECONDS",
        "3600",
        "End any call after this many seconds",
        parsers.number(10, 86400, "s"),
        "--max-call-seconds",
    ),
    # Conversation
    Setting(
        "MODE",
        "pipeline",
        "Brain of the call: pipeline or echo",
        parsers.one_of("pipeline", "echo"),
        "--mode",
    ),
    Setting(
        "SYSTEM_MESSAGE",
        DEFAULT_SYSTEM_MESSAGE,
        "What the assistant is and knows",
        parsers.text,
        "--system-message",
    ),
    Setting(
        "GREETING",
        "",
        "First sentence the bot says; empty: it waits for the caller",
        parsers.text,
        "--greeting",
    ),
    Setting(
        "SILENCE_DURATION_MS",
        "1000",
        "Caller silence that ends a turn, in ms",
        parsers.number(200, 5000, "ms"),
        "--silence-duration",
    ),
    Setting(
        "VAD_THRESHOLD_DBFS",
        "-40",
        "Level above which sound counts as speech, in dBFS",
        parsers.number(-70, -10, "dBFS", whole=False),
        "--vad-threshold-dbfs",
    ),
    Setting(
        "LANGUAGE", "", "Language of the callers (ISO code); empty: detected", parsers.language, "--language"
    ),
    Setting(
        "APOLOGY",
        "I am sorry, I am having trouble right now. Please say that again.",
        "Sentence played when an engine fails, rendered when the application starts",
        parsers.text,
        "--apology",
    ),
    Setting(
        "HOLD",
        "One moment, please.",
        "Sentence played when an answer takes long; empty: silence",
        parsers.text,
        "--hold",
    ),
    # Engines
    Setting(
        "OPENAI_API_KEY", "", "Key for all engine stages; empty: the embedded offline backend", secret=True
    ),
    Setting(
        "OPENAI_BASE_URL",
        "",
        "Any OpenAI-compatible server; empty: OpenAI with a key, else the embedded offline backend",
        parsers.optional_url,
        "--base-url",
    ),
    Setting("OPENAI_STT_BASE_URL", "", "Other server for speech-to-text", parsers.optional_url),
    Setting("OPENAI_STT_API_KEY", "", "Other key for speech-to-text", secret=True),
    Setting("OPENAI_STT_MODEL", "gpt-transcribe", "Speech-to-text model", parsers.text, "--stt-model"),
    Setting("OPENAI_CHAT_BASE_URL", "", "Other server for chat", parsers.optional_url),
    Setting("OPENAI_CHAT_API_KEY", "", "Other key for chat", secret=True),
    Setting("OPENAI_MODEL", "gpt-6-luna", "Chat model", parsers.text, "--model"),
    Setting("OPENAI_MAX_TOKENS", "500", "Longest answer, in tokens", parsers.number(16, 4096, "tokens")),
    Setting("OPENAI_TTS_BASE_URL", "", "Other server for text-to-speech", parsers.optional_url),
    Setting("OPENAI_TTS_API_KEY", "", "Other key for text-to-speech", secret=True),
    Setting("OPENAI_TTS_MODEL", "gpt-4o-mini-tts", "Text-to-speech model", parsers.text, "--tts-model"),
    Setting("OPENAI_TTS_VOICE", "alloy", "Voice of the bot", parsers.text, "--voice"),
    Setting(
        "OPENAI_TTS_RATE_HZ",
        "24000",
        "Sample rate of raw PCM from the text-to-speech server when its answer does not say",
        parsers.number(8000, 48000, "Hz"),
    ),
    # What a call leaves behind
    Setting(
        "SAVE_RECORDINGS",
        "no",
        "Keep audio and transcripts of each call",
        parsers.switch,
        "--save-recordings",
    ),
    Setting("RECORDINGS_DIR", "recordings", "Where they go", parsers.text, "--recordings-dir"),
    Setting("DEBUG", "no", "Verbose log; shows numbers and words", parsers.switch, "--debug"),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where one engine stage is reached."""

    base_url: str
    api_key: str = field(repr=False)
    model: str


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
    dial_endpoint: str
    caller_id: str
    ring_timeout: int
    max_call_seconds: int
    mode: str
    system_message: str
    greeting: str
    silence_duration_ms: int
    vad_threshold_dbfs: float
    language: str
    apology: str
    hold: str
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
    openai_tts_model: str
    openai_tts_voice: str
    openai_tts_rate_hz: int
    save_recordings: bool
    recordings_dir: str
    debug: bool

    @property
    def needs_offline_backend(self) -> bool:
        """True when a stage of the pipeline has neither a server of its own nor a key for OpenAI."""
        return self.mode == "pipeline" and any(not stage.base_url for stage in self.stages("").values())

    def stages(self, offline_url: str) -> dict[str, Stage]:
        """The three engine stages; `offline_url` serves those that have neither a server nor a key."""
        wanted = {
            "stt": (self.openai_stt_base_url, self.openai_stt_api_key, self.openai_stt_model),
            "chat": (self.openai_chat_base_url, self.openai_chat_api_key, self.openai_model),
            "tts": (self.openai_tts_base_url, self.openai_tts_api_key, self.openai_tts_model),
        }
        stages = {}
        for name, (own_url, own_key, model) in wanted.items():
            # The common key goes only to the common server: a stage with a server of its own has its own key.
            key = own_key or ("" if own_url else self.openai_api_key)
            url = own_url or self.openai_base_url or (OPENAI_URL if key else offline_url)
            stages[name] = Stage(url, key, model)
        return stages

    @property
    def stt_language_field(self) -> Literal["language", "languages"]:
        """OpenAI's current speech-to-text models take a list; older ones and other servers take one language."""
        at_openai = self.stages("")["stt"].base_url == OPENAI_URL
        return "languages" if at_openai and self.openai_stt_model not in RETIREMENTS else "language"

    def warnings(self) -> list[str]:
        """Sentences about models that OpenAI serves today and will not for long."""
        if self.mode != "pipeline":
            return []
        lines = []
        names = {"stt": "OPENAI_STT_MODEL", "chat": "OPENAI_MODEL", "tts": "OPENAI_TTS_MODEL"}
        for name, stage in self.stages("").items():
            retired = RETIREMENTS.get(stage.model)
            if retired and is_openai(stage.base_url):
                lines.append(
                    f"{names[name]}={stage.model}: OpenAI shuts this model down on {retired.date}; "
                    f"its successor is {retired.successor}."
                )
        return lines


def load(flags: Mapping[str, str | None], env: Mapping[str, str], dotenv: Mapping[str, str | None]) -> Config:
    """Build the configuration from flags (by environment name), the environment and `.env`.

    An empty value in the environment or in `.env` counts as not set, as compose files pass unset variables.

    Raises:
        ConfigError: one sentence per faulty setting.
    """
    values: dict[str, Any] = {}
    faults = []
    for setting in SETTINGS:
        raw, source = _lookup(setting, flags, env, dotenv)
        try:
            if any(ch in raw for ch in "\r\0") or ("\n" in raw and setting.env != "SYSTEM_MESSAGE"):
                raise ValueError("must be one line")
            values[setting.key] = setting.parse(raw)
        except ValueError as fault:
            shown = "" if setting.secret else f" '{raw}'"
            faults.append(f"{setting.env}{shown} ({source}) {fault}.")
    if faults:
        raise ConfigError(" ".join(faults))
    return Config(**values)


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


def require_ari(config: Config) -> None:
    """Check what `serve` and `dial` can't do without.

    Raises:
        ConfigError: naming the setting and the remedy.
    """
    if not config.ari_password:
        raise ConfigError(
            "ARI_PASSWORD is not set: put the password of the ARI user "
            f"'{config.ari_username}' (ari.conf of your Asterisk) into the environment or .env."
        )


def require_keys(config: Config) -> None:
    """Check that a stage that goes to OpenAI itself has a key.

    Raises:
        ConfigError: naming the setting and the remedy.
    """
    if config.mode != "pipeline":
        return
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


def settings_table() -> str:
    """The Markdown table of `docs/configuration.md`."""
    rows = ["| setting | flag | default | meaning |", "|---|---|---|---|"]
    for setting in SETTINGS:
        default = f"`{setting.default}`" if setting.default else ""
        flag = f"`{setting.flag}`" if setting.flag else ""
        rows.append(f"| `{setting.env}` | {flag} | {default} | {setting.meaning} |")
    return "\n".join(rows) + "\n"
