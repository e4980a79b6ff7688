"""The table of settings. Core, data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ari_app import parsers
from ari_app.models import ANY_SPEECH_MODEL, REALTIME_VOICE_MODEL
from ari_app.phrases import PHRASES

DEFAULT_SYSTEM_MESSAGE = (
    "You are a helpful assistant on a phone call. The caller may speak English or Spanish: "
    "detect the language first and always answer in it. "
    "Keep answers short and easy to understand over the phone."
)


_SAID = PHRASES["en"]


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
        "RTP_HOST",
        "auto",
        "Our address for RTP, as Asterisk reaches it; auto: the one from which we reach ARI_URL",
        parsers.address_or_auto,
        "--rtp-host",
    ),
    Setting(
        "RTP_PORTS", "", "Our UDP ports for RTP, e.g. 40000-40999; empty: any free port", parsers.port_range
    ),
    Setting(
        "MAX_CALLS",
        "20",
        "Calls at the same time; more are refused. Never more than SIP_RTP_PORTS has room for",
        parsers.number(1, 1000, "calls"),
    ),
    Setting(
        "MAX_LAG_MS",
        "100",
        "No call is taken while the application itself is late by more, in ms (median of 2 s): those that go on would "
        "hear it; 0: never mind",
        parsers.number_or_off(20, 5000, "ms"),
    ),
    # Outbound calls
    Setting(
        "DIAL_ENDPOINT",
        "PJSIP/{number}@trunk",
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
        "COUNTRY_CODE",
        "",
        "Your own country's code, e.g. 44: its ordinary numbers may be called, with or without it",
        parsers.country_code,
    ),
    Setting(
        "DIAL_ALLOW",
        "",
        "What else may be called, by commas: beginnings such as +44,+4930, and whole numbers as dialled",
        parsers.dial_entries,
    ),
    Setting(
        "DIAL_DENY",
        "",
        "What may not be called, by commas: beginnings such as +4487, or as dialled; the longer entry wins",
        parsers.dial_entries,
    ),
    Setting(
        "DIAL_EXTENSION_DIGITS",
        "0",
        "Numbers of at most so many digits are your own extensions and may be called, where DIAL_ENDPOINT leads to a "
        "PBX of yours: a trunk takes them for emergency and service numbers; 0: none",
        parsers.number(0, 6, "digits"),
    ),
    Setting("DIAL_PER_MINUTE", "6", "Outbound calls begun per minute", parsers.number(1, 600, "calls")),
    Setting("DIAL_CONCURRENT", "2", "Outbound calls at the same time", parsers.number(1, 1000, "calls")),
    Setting(
        "DIAL_DAILY_MINUTES",
        "120",
        "Minutes of outbound calls within 24 hours, all `dial` commands of this state directory together",
        parsers.number(1, 1_000_000, "minutes"),
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
        "End any call after this many seconds, with a warning half a minute before",
        parsers.number(10, 86400, "s"),
        "--max-call-seconds",
    ),
    Setting(
        "NO_AUDIO_SECONDS",
        "60",
        "Hang up a line that carried nothing for so long, to the caller or from them, unless they hold the call; some "
        "phones send nothing in silence; 0: never",
        parsers.number_or_off(20, 3600, "s"),
    ),
    # Conversation
    Setting(
        "MODE",
        "pipeline",
        "Brain of the call: pipeline (speech-to-text, chat, text-to-speech), realtime or echo",
        parsers.one_of("pipeline", "realtime", "echo"),
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
        "FINISHED_SILENCE_MS",
        "0",
        "Pipeline: silence that ends a turn whose words are a finished sentence, in ms; 0: SILENCE_DURATION_MS for all",
        parsers.number_or_off(200, 5000, "ms"),
    ),
    Setting(
        "SPECULATE_AFTER_MS",
        "240",
        "Pipeline: silence after which an answer is prepared that is thrown away if the caller goes on, in ms; "
        "0: none, which saves the requests",
        parsers.number(0, 5000, "ms"),
    ),
    Setting(
        "BARGE_IN_AFTER_MS",
        "140",
        "Speech of the caller that makes a turn, and makes the bot pause when it is speaking, in ms",
        parsers.number(60, 2000, "ms"),
    ),
    Setting(
        "BARGE_IN_WORDS",
        "1",
        "Pipeline: short speech over the bot of fewer words does not interrupt it, nor does a mere “mhm”",
        parsers.number(1, 10, "words"),
    ),
    Setting(
        "PROTECT_GREETING",
        "no",
        "What callers say over the greeting is not heard; for announcements that must be heard whole",
        parsers.switch,
    ),
    Setting(
        "VAD",
        "energy",
        "What finds the caller's speech: energy, or neural (extra `neural`) for lines with music or street noise; "
        "it costs a call three times the processor time, and 10 MB",
        parsers.one_of("energy", "neural"),
    ),
    Setting(
        "VAD_THRESHOLD_DBFS",
        "-40",
        "Level above which sound counts as speech, in dBFS",
        parsers.number(-70, -10, "dBFS", whole=False),
        "--vad-threshold-dbfs",
    ),
    Setting(
        "LANGUAGE",
        "",
        "Languages of the callers (ISO codes by commas), the usual one first; empty: detected, and English and Spanish "
        "for what the application says itself",
        parsers.languages,
        "--language",
    ),
    Setting(
        "APOLOGY",
        _SAID["apology"],
        "Sentence played when an engine fails. This and the next four are spoken in advance, and in the caller's "
        "language unless you change them",
        parsers.text,
        "--apology",
    ),
    Setting("REGRET", _SAID["regret"], "Last words before the bot gives a call up"),
    Setting(
        "HOLD",
        _SAID["hold"],
        "Sentence played when an answer takes long; empty: silence",
        parsers.text,
        "--hold",
    ),
    Setting(
        "GOODBYE",
        _SAID["goodbye"],
        "What callers hear who are still there when the server stops",
    ),
    Setting("IDLE", _SAID["idle"], "What a caller is asked after IDLE_SECONDS"),
    Setting(
        "IDLE_SECONDS",
        "30",
        "Silence on both sides after which the bot asks, and hangs up after half as long again without an answer; "
        "0: never",
        parsers.number_or_off(5, 3600, "s"),
    ),
    Setting(
        "ON_FAILURE",
        "dialplan",
        "What becomes of callers whose call the bot gives up: dialplan (it goes on, ARI_APP_RESULT=failed), hangup, or "
        "an extension to transfer them to (ARI_APP_RESULT=transfer); who was called is hung up",
        parsers.failure_policy,
    ),
    Setting(
        "HANDOVER_KEYS",
        "",
        "Keys, such as 0, with which a caller leaves the bot: the dialplan goes on, ARI_APP_RESULT=handover",
        parsers.keys,
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
    Setting(
        "OPENAI_STT_FALLBACK_BASE_URL",
        "",
        "Server that stands in where speech-to-text fails; `offline`: the embedded backend; empty: none",
        parsers.url_or_offline,
    ),
    Setting("OPENAI_STT_FALLBACK_API_KEY", "", "Its key", secret=True),
    Setting("OPENAI_STT_FALLBACK_MODEL", "", "Its model; of the embedded backend none is needed"),
    Setting("OPENAI_CHAT_BASE_URL", "", "Other server for chat", parsers.optional_url),
    Setting("OPENAI_CHAT_API_KEY", "", "Other key for chat", secret=True),
    Setting(
        "OPENAI_MODEL",
        "gpt-6-luna",
        "Chat model; with `--mode realtime` the flag means the Realtime model",
        parsers.text,
        "--model",
    ),
    Setting("OPENAI_MAX_TOKENS", "500", "Longest answer, in tokens", parsers.number(16, 4096, "tokens")),
    Setting(
        "OPENAI_CHAT_FALLBACK_BASE_URL",
        "",
        "Server that stands in where chat fails; `offline`: the embedded backend; empty: none",
        parsers.url_or_offline,
    ),
    Setting("OPENAI_CHAT_FALLBACK_API_KEY", "", "Its key", secret=True),
    Setting("OPENAI_CHAT_FALLBACK_MODEL", "", "Its model; of the embedded backend none is needed"),
    Setting("OPENAI_TTS_BASE_URL", "", "Other server for text-to-speech", parsers.optional_url),
    Setting("OPENAI_TTS_API_KEY", "", "Other key for text-to-speech", secret=True),
    Setting(
        "OPENAI_TTS_API",
        "auto",
        "How speech is made: speech (POST /audio/speech), realtime (a Realtime session), or auto: realtime at "
        "OpenAI, whose speech models end on 2027-01-06, and speech elsewhere",
        parsers.one_of("auto", "speech", "realtime"),
    ),
    Setting(
        "OPENAI_TTS_MODEL",
        "",
        f"Text-to-speech model; empty: {REALTIME_VOICE_MODEL} over Realtime, {ANY_SPEECH_MODEL} otherwise",
        parsers.text,
        "--tts-model",
    ),
    Setting("OPENAI_TTS_VOICE", "alloy", "Voice of the bot", parsers.text, "--voice"),
    Setting(
        "OPENAI_TTS_RATE_HZ",
        "24000",
        "Sample rate of raw PCM from the text-to-speech server when its answer does not say",
        parsers.number(8000, 48000, "Hz"),
    ),
    Setting(
        "OPENAI_TTS_FALLBACK_BASE_URL",
        "",
        "Server that stands in where text-to-speech fails; `offline`: the embedded backend; empty: none",
        parsers.url_or_offline,
    ),
    Setting("OPENAI_TTS_FALLBACK_API_KEY", "", "Its key", secret=True),
    Setting("OPENAI_TTS_FALLBACK_MODEL", "", "Its model; of the embedded backend none is needed"),
    Setting("OPENAI_TTS_FALLBACK_VOICE", "", "Its voice; empty: OPENAI_TTS_VOICE"),
    # Realtime
    Setting(
        "OPENAI_RT_BASE_URL",
        "",
        "Server for `--mode realtime`; empty: OPENAI_BASE_URL, else OpenAI with a key, else the embedded "
        "offline backend",
        parsers.optional_url,
    ),
    Setting("OPENAI_RT_API_KEY", "", "Other key for Realtime", secret=True),
    Setting("OPENAI_RT_MODEL", "gpt-realtime-2.1", "Realtime model; its flag is --model too"),
    Setting(
        "OPENAI_RT_FALLBACK_BASE_URL",
        "",
        "Server that stands in where Realtime fails; `offline`: the embedded backend; empty: none",
        parsers.url_or_offline,
    ),
    Setting("OPENAI_RT_FALLBACK_API_KEY", "", "Its key", secret=True),
    Setting("OPENAI_RT_FALLBACK_MODEL", "", "Its model; of the embedded backend none is needed"),
    Setting(
        "OPENAI_RT_AUDIO",
        "pcm",
        "Audio on the Realtime connection: pcm (24 kHz) or pcmu (8 kHz µ-law, a sixth of the bytes)",
        parsers.one_of("pcm", "pcmu"),
    ),
    Setting(
        "OPENAI_RT_TRANSCRIPTION_MODEL",
        "gpt-transcribe",
        "Model that writes down what Realtime callers say",
        parsers.text,
    ),
    Setting(
        "OPENAI_RT_TURN_DETECTION",
        "server_vad",
        "How the Realtime server finds the end of a turn: server_vad (silence) or semantic_vad (meaning)",
        parsers.one_of("server_vad", "semantic_vad"),
        "--turn-detection",
    ),
    Setting(
        "VAD_THRESHOLD",
        "0.5",
        "Realtime, server_vad: 0 to 1, higher needs louder speech",
        parsers.number(0, 1, "share", whole=False),
        "--vad-threshold",
    ),
    Setting(
        "PREFIX_PADDING_MS",
        "300",
        "Realtime, server_vad: audio kept from before the first sound, in ms",
        parsers.number(0, 2000, "ms"),
        "--prefix-padding",
    ),
    Setting(
        "OPENAI_RT_EAGERNESS",
        "auto",
        "Realtime, semantic_vad: how soon it answers: low, medium, high or auto",
        parsers.one_of("auto", "low", "medium", "high"),
        "--eagerness",
    ),
    Setting(
        "OPENAI_RT_IDLE_TIMEOUT_MS",
        "0",
        "Realtime, server_vad: the bot speaks up after so much silence, 5000 to 30000 ms; 0: never",
        parsers.number_or_off(5000, 30000, "ms"),
        "--idle-timeout",
    ),
    Setting(
        "OPENAI_RT_BARGE_IN",
        "server",
        "Realtime: who decides that the caller interrupts: server, or local (our own detector, "
        "for lines with an echo)",
        parsers.one_of("server", "local"),
        "--barge-in",
    ),
    Setting(
        "OPENAI_RT_NOISE_REDUCTION",
        "near_field",
        "Realtime: near_field, far_field or off",
        parsers.one_of("near_field", "far_field", "off"),
    ),
    Setting(
        "OPENAI_RT_SPEED",
        "1.0",
        "Realtime: speaking rate of the bot, 0.25 to 1.5",
        parsers.number(0.25, 1.5, "times", whole=False),
        "--speed",
    ),
    Setting(
        "OPENAI_RT_MAX_TOKENS",
        "1024",
        "Realtime: longest answer, in tokens; a second of speech is 20",
        parsers.number(16, 4096, "tokens"),
    ),
    Setting(
        "OPENAI_RT_TRUNCATION",
        "auto",
        "Realtime: what happens when the context is full: auto, disabled, or the share that is kept, such as 0.8",
        parsers.word_or_number("auto", "disabled", low=0, high=1),
    ),
    Setting(
        "OPENAI_RT_REASONING",
        "",
        "Realtime: reasoning effort of models that have one: minimal, low, medium, high; empty: theirs",
        parsers.one_of("", "minimal", "low", "medium", "high", "xhigh"),
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
    Setting(
        "RECORDINGS_KEEP_DAYS",
        "30",
        "`serve` deletes older recordings; 0: never",
        parsers.number(0, 36500, "days"),
    ),
    Setting(
        "RECORDINGS_MAX_MB",
        "0",
        "`serve` deletes the oldest recordings when all together are larger; 0: no bound",
        parsers.number(0, 1_000_000_000, "MB"),
    ),
    Setting(
        "RECORDINGS_MIN_FREE_MB",
        "500",
        "With less free on their disk nothing is recorded, and calls go on",
        parsers.number(0, 1_000_000_000, "MB"),
    ),
    Setting(
        "RECORDINGS_KEY",
        "",
        "age public key (age1…): recordings are sealed, and only the private key opens them (extra `sealed`)",
    ),
    Setting(
        "CONSENT",
        "",
        "Sentence that callers hear first, whole, when calls are recorded; such as “This call is recorded.”",
    ),
    Setting("DEBUG", "no", "Verbose log; shows numbers and words", parsers.switch, "--debug"),
    # Operation
    Setting(
        "LOG_FORMAT",
        "auto",
        "Log lines as text or json; auto: text on a terminal and for `dial`, else one JSON object per line",
        parsers.one_of("auto", "text", "json"),
    ),
    Setting(
        "WEB_PORT",
        "0",
        "TCP port of `serve` for the console, the API, /metrics, /live and /ready; 0: none",
        parsers.number(0, 65535, "port"),
        "--web-port",
    ),
    Setting("WEB_HOST", "127.0.0.1", "Address it listens on", parsers.any_address, "--web-host"),
    Setting(
        "WEB_NAMES",
        "",
        "Names by which browsers reach the console through a proxy, by commas, such as bot.example.com",
        parsers.host_names,
    ),
    Setting(
        "API_TOKEN",
        "",
        "Secret of console, API and /metrics; empty: made on the first start and kept in the file that the log names",
        parsers.token,
        secret=True,
    ),
    Setting(
        "BROWSER_PASSWORD",
        "",
        "Password of the SIP account `browser` of the bundled Asterisk: with it the console has a telephone",
        secret=True,
    ),
    Setting("BROWSER_EXTENSION", "100", "Extension that it calls", parsers.extension),
    Setting(
        "DRAIN_SECONDS",
        "30",
        "When `serve` is told to stop, callers may finish for so long before they hear GOODBYE",
        parsers.number(0, 3600, "s"),
    ),
    Setting(
        "PRICES_FILE",
        "",
        "JSON file of your prices by model, for what calls cost: see [operate.md](operate.md)",
    ),
)

_OTLP = (
    *("ENDPOINT", "PROTOCOL", "HEADERS", "TIMEOUT", "COMPRESSION"),
    *("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"),
)

OTHER_NAMES: frozenset[str] = frozenset(
    (
        # Asterisk's side, read by asterisk-config/environment.py
        *("SIP_DOMAIN", "SIP_USERNAME", "SIP_PASSWORD", "SIP_AUTH_USERNAME", "SIP_TRANSPORT", "SIP_PORT"),
        *("SIP_PROXY", "SIP_REG_TIMEOUT", "STUN_SERVER", "SIP_REGISTER", "SIP_PEERS", "SIP_SRTP"),
        *("SIP_CODECS", "SIP_CA_FILE", "SIP_LISTEN_PORT", "SIP_RTP_PORTS", "SIP_PASSWORD_FILE"),
        *(
            "EXTERNAL_ADDRESS",
            "BROWSER_PHONE",
            "LOCAL_NETS",
            "BOT_EXTENSION",
            "FALLBACK_EXTENSION",
            "AWAY_SOUND",
        ),
        *("APT_OPTIONS", "WEB_PUBLISHED_PORT"),
        # OpenTelemetry's, read by its SDK
        *(f"OTEL_EXPORTER_OTLP_{name}" for name in _OTLP),
        *(f"OTEL_EXPORTER_OTLP_TRACES_{name}" for name in _OTLP),
        *("OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_SDK_DISABLED"),
        *("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_BSP_SCHEDULE_DELAY"),
        *("OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
        # the system's
        *("PATH", "HOME", "USER", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_STATE_HOME"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    )
)
"""What a `.env` may hold beside our settings. Names that begin with COMPOSE_ or DOCKER_ belong to Docker."""


def incomplete_fallbacks(values: Mapping[str, object]) -> list[str]:
    """A sentence for each engine that is to stand in, and could not, as it is set.

    Args:
        values: parsed, by `Setting.key`.
    """
    faults = []
    for prefix in (f"OPENAI_{stage}_FALLBACK" for stage in ("STT", "CHAT", "TTS", "RT")):
        given = {
            name for setting in SETTINGS if (name := setting.env).startswith(prefix) and values[setting.key]
        }
        url, model = f"{prefix}_BASE_URL", f"{prefix}_MODEL"
        if given and url not in given:
            faults.append(
                f"{min(given)} is set without {url}: name the server that stands in, or leave both empty."
            )
        elif given and model not in given and values[url.lower()] != parsers.OFFLINE:
            faults.append(f"{model} is not set: name the model that {url} is asked for.")
    return faults


def settings_table() -> str:
    """The Markdown table of `docs/configuration.md`."""
    rows = ["| setting | flag | default | meaning |", "|---|---|---|---|"]
    for setting in SETTINGS:
        default = f"`{setting.default}`" if setting.default else ""
        flag = f"`{setting.flag}`" if setting.flag else ""
        rows.append(f"| `{setting.env}` | {flag} | {default} | {setting.meaning} |")
    return "\n".join(rows) + "\n"


def secret_files() -> str:
    """The list of `docs/configuration.md`: what may hold the path of a secret's file."""
    return ", ".join(f"`{setting.env}_FILE`" for setting in SETTINGS if setting.secret)
