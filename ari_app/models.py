"""What is known about OpenAI's models: names, last days, prices. Core, data only.

No other file but the table of settings, which holds the defaults, knows model names: OpenAI retires them on
published dates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
    "tts-1": Retirement("2027-01-06", "gpt-realtime-2.1-mini"),
    "tts-1-hd": Retirement("2027-01-06", "gpt-realtime-2.1-mini"),
    "gpt-4o-mini-tts": Retirement("2027-01-06", "gpt-realtime-2.1-mini"),
    "gpt-realtime": Retirement("2027-01-20", "gpt-realtime-2.1"),
    "gpt-realtime-2025-08-28": Retirement("2027-01-20", "gpt-realtime-2.1"),
    "gpt-realtime-mini": Retirement("2027-01-20", "gpt-realtime-2.1-mini"),
    "gpt-4o-realtime-preview": Retirement("2026-05-07", "gpt-realtime-2.1"),
    "gpt-4o-mini-realtime-preview": Retirement("2026-05-07", "gpt-realtime-2.1-mini"),
}
SPEECH_ENDPOINT_MODELS = frozenset(("tts-1", "tts-1-hd", "gpt-4o-mini-tts"))
LANGUAGE_LIST_MODELS = frozenset(("gpt-transcribe", "gpt-live-transcribe"))
"""Speech-to-text models that take a list of languages; all others take one."""
REALTIME_VOICE_MODEL = "gpt-realtime-2.1-mini"
ANY_SPEECH_MODEL = "tts-1"
"""The name that compatible servers take for whatever voice they have."""

# US dollars, by kinds of `prices.py`; https://developers.openai.com/api/docs/pricing as read in November 2026. No
# price for cached text is known; it is counted in full, so a sum is never too low. PRICES_FILE comes before these.
PRICES: Mapping[str, Mapping[str, float]] = {
    "gpt-realtime-2.1": {
        "text_in": 4.0,
        "text_in_cached": 4.0,
        "text_out": 24.0,
        "audio_in": 32.0,
        "audio_in_cached": 0.4,
        "audio_out": 64.0,
    },
    "gpt-realtime-2.1-mini": {
        "text_in": 0.6,
        "text_in_cached": 0.6,
        "text_out": 2.4,
        "audio_in": 10.0,
        "audio_in_cached": 0.3,
        "audio_out": 20.0,
    },
    "gpt-transcribe": {"minute": 0.0045},
}
