"""The caller's utterances and the recorded sentences: level, no clipping, no silence around them, cached."""

from __future__ import annotations

import numpy as np
import pytest

from ari_app.demo.hearing import sound_span
from ari_app.demo.voice import levelled, utterance
from tests.e2e.callers import human_sentences


def active_level_dbfs(pcm: bytes) -> float:
    samples = np.frombuffer(pcm, "<i2").astype(np.float64) / 32768
    power = np.mean(np.square(samples[: len(samples) // 160 * 160].reshape(-1, 160)), axis=1)
    return float(10 * np.log10(np.mean(power[power > power.max() / 1000])))


def assert_telephone_speech(pcm: bytes) -> None:
    samples = np.frombuffer(pcm, "<i2")
    assert np.max(np.abs(samples.astype(np.int32))) <= 0.96 * 32768
    assert active_level_dbfs(pcm) == pytest.approx(-20, abs=1)
    span = sound_span(pcm)
    assert span is not None
    assert span[0] <= 60 * 16
    assert span[1] >= len(pcm) - 60 * 16


def test_utterance_is_telephone_speech_and_rendered_once() -> None:
    pcm = utterance("Hello, what time do you open on Saturday?")
    assert_telephone_speech(pcm)
    assert 1.5 < len(pcm) / 16000 < 4
    assert utterance("Hello, what time do you open on Saturday?") is pcm


def test_text_without_words_is_silent() -> None:
    pcm = utterance("")
    assert sound_span(pcm) is None


def test_level_gives_way_to_the_peak() -> None:
    spiky = np.zeros(8000, dtype=np.float32)
    spiky[::1000] = 0.5
    loudest = np.max(np.abs(np.frombuffer(levelled(spiky), "<i2")))
    assert loudest == pytest.approx(0.95 * 32767, abs=1)


def test_level_of_digital_silence_is_silence() -> None:
    assert levelled(np.zeros(100, dtype=np.float32)) == bytes(200)


def test_human_sentences_are_telephone_speech_with_their_text() -> None:
    sentences = human_sentences()
    assert "he was not an ill disposed young man" in [sentence.text for sentence in sentences]
    assert len(sentences) == 5
    for sentence in sentences:
        assert_telephone_speech(sentence.pcm)
