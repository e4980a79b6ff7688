"""The neural detector on real speech and on what is loud without being speech, all through a telephone."""

from __future__ import annotations

import numpy as np
import pytest

from ari_app.audio.format import FRAME_BYTES
from ari_app.audio.neural_vad import NeuralVad
from ari_app.audio.vad import EnergyVad, Vad, VadState, level_dbfs
from ari_app.demo.voice import utterance

RATE_HZ = 8000
T = np.arange(4 * RATE_HZ) / RATE_HZ
NOISE = np.random.default_rng(5)
LOUD: dict[str, np.ndarray] = {
    "white noise": NOISE.normal(0, 2500, len(T)),
    "ringing": 6000 * np.sin(2 * np.pi * 425 * T) * (T % 2 < 1),
    "keys": 4000 * (np.sin(2 * np.pi * 770 * T) + np.sin(2 * np.pi * 1336 * T)) * (T % 0.4 < 0.2),
    "silence": np.zeros(len(T)),
}


def voiced(vad: Vad, pcm: bytes) -> list[bool]:
    frames = [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm) - FRAME_BYTES + 1, FRAME_BYTES)]
    return [vad.push(frame, 0.0) in (VadState.STARTING, VadState.SPEAKING) for frame in frames]


def test_speech_is_found_and_the_silence_around_it_is_not() -> None:
    speech = utterance("I would like to know when you open on Saturday.")
    silence = NOISE.normal(0, 20, 2 * RATE_HZ).astype("<i2").tobytes()
    found = voiced(NeuralVad(), silence + speech + silence)
    begin, end = len(silence) // FRAME_BYTES, (len(silence) + len(speech)) // FRAME_BYTES
    loud = [
        n for n in range(begin, end) if level_dbfs(speech[(n - begin) * 320 : (n - begin + 1) * 320]) > -35
    ]
    assert np.mean([found[n] for n in loud]) > 0.9
    assert not any(found[: begin - 1])
    assert not any(found[end + 15 :]), "within 300 ms"


@pytest.mark.parametrize("sound", LOUD)
def test_what_is_loud_and_no_speech_is_none(sound: str) -> None:
    pcm = LOUD[sound].astype("<i2").tobytes()
    assert np.mean(voiced(NeuralVad(), pcm)) <= 0.02
    if sound in ("ringing", "keys"):
        assert np.mean(voiced(EnergyVad(), pcm)) > 0.3, "which is why there is a neural one"
