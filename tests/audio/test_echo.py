"""Our own voice coming back over the line is no speech of the caller; the caller over it is. With real speech."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from numpy.typing import NDArray

from ari_app.audio.echo import SpeechDetector
from ari_app.audio.format import FRAME_BYTES, SILENT_FRAME
from ari_app.audio.resample import resample
from ari_app.audio.vad import EnergyVad
from ari_app.demo.voice import levelled, utterance
from ari_app.dialog.turns import TurnSettings, TurnStarted, TurnTracker
from ari_app.offline.voice import speak
from tests.fakes.raw_sip_phone import ULAW

Signal = NDArray[np.float64]
RATE_HZ = 8000
ANSWER = (
    "We are open from nine to five on weekdays, and from ten to two on Saturdays. "
    "A new bicycle tyre costs twenty euros, and fitting it takes about half an hour."
)
HYBRID = np.zeros(48)
HYBRID[[0, 7, 15, 33]] = 1, -0.5, 0.3, 0.2
"""A path that smears over 4 ms, as a two-wire hybrid does."""


@functools.lru_cache
def bot() -> Signal:
    pcm = resample(speak(ANSWER, "en-US"), 16000, RATE_HZ)
    return as_signal(levelled((np.frombuffer(pcm, "<i2") / 32768).astype(np.float32)))


@functools.lru_cache
def caller() -> Signal:
    return as_signal(utterance("Stop, please. I would like to ask something else."))


def as_signal(pcm: bytes) -> Signal:
    return np.frombuffer(pcm, "<i2").astype(float)


def over_the_telephone(signal: Signal) -> bytes:
    """G.711 µ-law (ITU-T G.711), by the nearest of its values."""
    values = np.sort(ULAW.astype(float))
    nearest = np.searchsorted((values[1:] + values[:-1]) / 2, signal)
    return values[nearest].astype("<i2").tobytes()


def line(
    echo_db: float | None, delay_ms: float, *, speech: Signal | None = None, speech_at_s: float = 2.0
) -> Signal:
    """What comes from the caller while the bot speaks: noise at -65 dBFS, an echo, and their own speech."""
    heard = np.random.default_rng(1).normal(0, 32768 * 10 ** (-65 / 20), len(bot()) + RATE_HZ)
    if echo_db is not None:
        delay = int(delay_ms * RATE_HZ / 1000)
        heard[delay : delay + len(bot())] += bot()[: len(heard) - delay] * 10 ** (echo_db / 20)
    if speech is not None:
        at = int(speech_at_s * RATE_HZ)
        heard[at : at + len(speech)] += speech
    return heard


def voiced_frames(heard: Signal, sent: Signal | None = None) -> list[int]:
    """Which 20 ms frames are taken for the caller's speech."""
    detector = SpeechDetector(EnergyVad())
    outbound = over_the_telephone(bot() if sent is None else sent)
    inbound = over_the_telephone(heard)
    found = []
    for number in range(len(inbound) // FRAME_BYTES):
        place = slice(number * FRAME_BYTES, (number + 1) * FRAME_BYTES)
        detector.push_sent(outbound[place].ljust(FRAME_BYTES, b"\0"))
        if detector.push(inbound[place], number * 0.02):
            found.append(number)
    return found


@pytest.mark.parametrize("delay_ms", [20, 80, 200, 433.3])
@pytest.mark.parametrize("echo_db", [-6, -10, -15, -20])
def test_an_echo_is_no_speech(echo_db: float, delay_ms: float) -> None:
    heard = line(echo_db, delay_ms)
    assert len(voiced_frames(heard, np.zeros(1))) > 150, "without its cause it would be taken for speech"
    assert voiced_frames(heard) == []


def turns(heard: Signal) -> int:
    """How often the caller would be taken to have begun to speak."""
    tracker = TurnTracker(TurnSettings())
    voiced = set(voiced_frames(heard))
    frames = len(heard) * 2 // FRAME_BYTES
    events = [tracker.push(SILENT_FRAME, number in voiced, number * 0.02) for number in range(frames)]
    return sum(isinstance(event, TurnStarted) for event in events)


@pytest.mark.parametrize("echo_db", [-10, -15])
@pytest.mark.parametrize("distorts", [False, True])
def test_an_echo_that_a_hybrid_smears_or_a_loudspeaker_distorts_is_no_turn(
    echo_db: float, distorts: bool
) -> None:
    heard = np.convolve(line(echo_db, 80), HYBRID)
    assert turns(np.tanh(heard / 2000) * 2000 if distorts else heard) == 0


@pytest.mark.parametrize(("echo_db", "delay_ms"), [(None, 0), (-15, 80), (-10, 200)])
def test_the_caller_is_heard_over_the_bot_as_over_silence(echo_db: float | None, delay_ms: float) -> None:
    alone = voiced_frames(line(None, 0, speech=caller()), np.zeros(1))
    over = voiced_frames(line(echo_db, delay_ms, speech=caller()))
    assert over[0] <= alone[0] + 6, "the onset, where it is not softer than the echo"
    # The voices are not the same to the sample in each process: 79 to 92 % of the frames at -10 dB.
    assert len(set(over) & set(alone)) >= 0.75 * len(alone), "but for frames in which the echo is the louder"
    assert over[0] >= 99, "not before it"


def test_a_soft_caller_is_heard_over_a_loud_echo() -> None:
    over = voiced_frames(line(-10, 200, speech=caller() * 0.3))
    assert 99 <= over[0] <= 110
    assert len(over) > 50


def test_an_echo_whose_way_changes_is_found_again() -> None:
    heard = line(-10, 80)
    changed = line(-15, 240)
    half = len(heard) // 2
    assert len(voiced_frames(np.concatenate((heard[:half], changed[half:])))) <= 2


def test_a_bot_that_is_long_silent_explains_nothing() -> None:
    pause = np.zeros(5 * RATE_HZ)
    heard = np.concatenate((line(-15, 80), pause, caller()))
    found = voiced_frames(heard, np.concatenate((bot(), pause, pause)))
    assert len(found) == len(voiced_frames(np.concatenate((pause, caller())), np.zeros(1)))
