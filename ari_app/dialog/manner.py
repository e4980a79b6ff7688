"""How a pipeline converses: its settings. Core, data only."""

from __future__ import annotations

from dataclasses import dataclass

from ari_app.dialog.phrasebook import NO_PHRASES, Phrasebook


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """How the pipeline converses. PCM is 8 kHz."""

    system_message: str = ""
    greeting: str | None = None
    silence_duration_ms: int = 1000
    speculate_after_ms: int = 240
    """Silence after which the answer is prepared; 0: only when the turn is over."""
    vad: str = "energy"
    """Or "neural"."""
    vad_threshold_dbfs: float = -40.0
    finished_silence_ms: int = 0
    """Silence that ends a turn whose words are a finished utterance; 0: as any other."""
    min_speech_ms: int = 140
    """Speech that makes a turn, and pauses the bot."""
    interrupting_words: int = 1
    """What is said over the bot in fewer words does not interrupt it."""
    protect_greeting: bool = False
    """What is said over the greeting is not heard."""
    phrases: Phrasebook = NO_PHRASES
    hold_after_s: float = 2.5
    """When nothing could be heard so long after the end of a turn, the caller is asked for patience."""
    stt_deadline_s: float = 5.0
    """For the whole transcript."""
    chat_deadline_s: float = 5.0
    """For each piece of the stream."""
    tts_deadline_s: float = 5.0
    """For each piece of the stream."""
    max_failures: int = 3
    """Failed turns in a row after which the brain gives up; at once when the failure is permanent."""
