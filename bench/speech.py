"""What the benchmark's callers say: real speech of a packaged voice, cut to where the sound begins and ends."""

from __future__ import annotations

import numpy as np

from ari_app.audio.format import FRAME_BYTES
from ari_app.audio.vad import level_dbfs
from ari_app.demo.voice import utterance

QUESTIONS = (
    "What time do you open on Saturday?",
    "How much does a basic service cost?",
    "Where is your shop?",
    "Do you repair electric bicycles too?",
)
INTERRUPTION = "Excuse me, stop please."
EDGE_DBFS = -38.0
"""Speech ends with its last frame above this: 2 dB over the application's threshold, so that both sides of the
measurement mean the same moment."""


def trimmed(pcm: bytes) -> bytes:
    """Whole 20 ms frames of PCM16 at 8 kHz, from the first loud one to the last."""
    frames = [pcm[i : i + FRAME_BYTES] for i in range(0, len(pcm) - FRAME_BYTES + 1, FRAME_BYTES)]
    loud = np.flatnonzero([level_dbfs(frame) > EDGE_DBFS for frame in frames])
    return b"".join(frames[loud[0] : loud[-1] + 1]) if len(loud) else b""


def voices() -> list[bytes]:
    """The questions."""
    return [trimmed(utterance(text)) for text in QUESTIONS]


def interruption() -> bytes:
    """What is said over the bot."""
    return trimmed(utterance(INTERRUPTION))
