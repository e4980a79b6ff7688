"""What the benchmark's callers say: real speech of a packaged voice, cut to where the sound begins and ends."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ari_app.audio.format import FRAME_BYTES, TELEPHONE_RATE_HZ
from ari_app.audio.vad import level_dbfs
from ari_app.backend import OfflineBackend
from ari_app.demo.voice import utterance
from ari_app.openai_api.client import StageSettings
from ari_app.openai_api.stt import OpenAiSpeechToText

QUESTIONS = (
    "What time do you open on Saturday?",
    "How much does a basic service cost?",
    "Where is your shop?",
    "Do you repair electric bicycles too?",
)
INTERRUPTION = "Excuse me, stop please."
BACKCHANNELS = (
    "Hmm.",
    "Uh huh.",
    "Yeah.",
    "Okay.",
    "Right.",
    "I see.",
    "Sure.",
    "Yes, okay.",
    "Got it.",
    "Ah, okay.",
)
INTERRUPTIONS = (
    *(
        "Stop.",
        "Wait a moment.",
        "No, thank you.",
        "Excuse me, stop please.",
        "Hold on.",
        "That is not what I asked.",
    ),
    *("But when is it ready?", "How much is that?", "No, no, no.", "Can I talk to somebody?"),
)
PAUSED = (
    ("My bicycle is blue and", "it has three gears."),
    ("Could you tell me whether the", "blue one is still there?"),
    ("I wanted to ask about", "the price of a new chain."),
    ("The front wheel is", "making a strange noise."),
    ("I would like to order", "two tyres for my bicycle."),
    ("If you have time today,", "I could come at four."),
    ("It is a city bike with", "a very old lamp."),
    ("My order number is", "five three seven one."),
    ("I am calling because", "my brakes do not work."),
    ("I think that I", "left my helmet in your shop."),
    ("My name is Miller and I", "called you last week."),
    ("On Tuesday", "I have no time at all."),
    ("Last year I bought", "a bicycle in your shop."),
    ("The brake on the left side", "does not work any more."),
    ("Do you have", "a pump for sale?"),
    ("We would need it", "before the weekend."),
    ("It was repaired in", "March, I think."),
    ("Can you please", "call me back later?"),
    ("How much would it cost to", "paint the frame?"),
    ("I have two children and they", "need helmets."),
)
"""Sentences with a pause for thought: nobody who hears the first part believes that it was all."""
PAUSE_MS = 700
COMPLETE = (
    "What time do you open on Saturday?",
    "I need a new tyre for my bicycle.",
    "How long does a repair take?",
    "Yes, please do that.",
    "That sounds good to me.",
    "Can I bring it tomorrow morning?",
    "My bicycle was stolen yesterday.",
    "Thank you, that was all.",
    "Do you repair electric bicycles too?",
    "I will come on Tuesday at nine.",
)
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


def clips(texts: Iterable[str]) -> list[bytes]:
    """What is said, one by one."""
    return [trimmed(utterance(text)) for text in texts]


def line_noise(seed: int) -> bytes:
    """Three seconds of a bad line: hiss at -50 dBFS, hum of the mains at -45, and crackles of up to 15 ms."""
    random = np.random.default_rng(seed)
    length = 3 * TELEPHONE_RATE_HZ
    sound = random.normal(0, 32768 * 10 ** (-50 / 20), length)
    sound += (
        32768 * 10 ** (-45 / 20) * 2**0.5 * np.sin(2 * np.pi * 50 * np.arange(length) / TELEPHONE_RATE_HZ)
    )
    for start in random.integers(0, length - 200, 12):
        burst = random.integers(8, 120)
        sound[start : start + burst] += random.normal(0, 6000, burst)
    return np.clip(sound, -32000, 32000).astype("<i2").tobytes()


def cough(seed: int) -> bytes:
    """Two bursts of noise that swell and fade, of a quarter of a second in all."""
    noise = np.random.default_rng(seed).normal(0, 1, (2, 8 * 120))
    shaped = noise * np.hanning(noise.shape[1]) * 32768 * 10 ** (-18 / 20)
    gap = np.zeros(8 * 60)
    return trimmed(
        np.clip(np.concatenate((shaped[0], gap, shaped[1])), -32768, 32767).astype("<i2").tobytes()
    )


def paused(parts: tuple[str, str]) -> tuple[bytes, bytes]:
    """The first part alone, and both with the pause between."""
    first, second = (trimmed(utterance(part)) for part in parts)
    return first, first + bytes(PAUSE_MS * 16) + second


async def understood(recordings: Iterable[bytes]) -> dict[bytes, str]:
    """What the embedded speech-to-text makes of each recording, with silence around it. Takes seconds."""
    silence = bytes(8000)
    async with OfflineBackend() as backend:
        stt = OpenAiSpeechToText(StageSettings(backend.url, "any"))
        try:
            return {pcm: (await stt.transcribe(silence + pcm + silence, 8000)).text for pcm in recordings}
        finally:
            await stt.close()
