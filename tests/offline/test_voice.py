"""Pico: what is spoken as one piece, in whose voice, and what it sounds like at the ends."""

from __future__ import annotations

import numpy as np
import pytest

from ari_app.offline import voice


@pytest.mark.parametrize(
    ("name", "text", "picked"),
    [
        ("alloy", "We are open.", "en-US"),
        ("alloy", "Estamos abiertos los lunes.", "es-ES"),
        ("", "Hello", "en-US"),
        ("de-de", "We are open.", "de-DE"),
        ("en-GB", "Estamos abiertos los lunes.", "en-GB"),
    ],
)
def test_a_voice_of_picos_own_or_that_of_the_texts_language(name: str, text: str, picked: str) -> None:
    assert voice.pick_voice(name, text) == picked


def test_sentences_are_spoken_one_by_one() -> None:
    assert voice.pieces(" Hello there!  How are you?\nFine… ... ") == [
        "Hello there!",
        "How are you?",
        "Fine…",
    ]


def test_a_long_sentence_is_spoken_in_parts_that_lose_nothing() -> None:
    text = "word " * 300 + "end."
    parts = voice.pieces(text)
    assert " ".join(parts) == text
    assert max(map(len, parts)) <= 300  # about 0.1 s of the engine


def test_no_commands_reach_the_engine() -> None:
    assert voice.pieces("<speed level='300'>Now.") == ["speed level='300' Now."]


def test_half_a_character_is_not_spoken() -> None:
    assert voice.pieces("\ud800 Now.") == ["Now."]


@pytest.mark.parametrize("name", voice.VOICES)
def test_speech_has_no_long_silence_at_its_ends_and_does_not_clip(name: str) -> None:
    samples = np.frombuffer(voice.speak("One, two, three, four.", name), "<i2")
    assert len(samples) > voice.RATE_HZ
    loud = np.flatnonzero(np.abs(samples.astype(int)) > 1000)
    assert loud[0] < voice.RATE_HZ // 4 and len(samples) - loud[-1] < voice.RATE_HZ // 4
    assert 5000 < np.abs(samples.astype(int)).max() < 32_000


def test_speed_changes_the_duration() -> None:
    slow, fast = (len(voice.speak("One, two, three, four.", "en-US", speed)) for speed in (0.5, 2.0))
    assert slow > 2 * fast


def test_what_has_no_sound_is_empty() -> None:
    assert voice.speak("日本語", "en-US") == b""
