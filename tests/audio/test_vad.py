"""Energy VAD: the table of its states, levels in dBFS, and sounds that are no speech."""

import numpy as np
import numpy.typing as npt
import pytest

from ari_app.audio.vad import EnergyVad, VadState, level_dbfs

QUIET, STARTING, SPEAKING, STOPPING = VadState.QUIET, VadState.STARTING, VadState.SPEAKING, VadState.STOPPING
FRAME_S = 0.02


def noise(seconds: float, dbfs: float, seed: int = 1) -> npt.NDArray[np.float64]:
    """White noise of this RMS level."""
    return np.random.default_rng(seed).normal(0, 32768 * 10 ** (dbfs / 20), int(seconds * 8000))


def babble_of_syllables(seconds: float, dbfs: float) -> npt.NDArray[np.float64]:
    """A stand-in for speech: a buzz at 130 Hz, four syllables a second, with pauses of 60 ms between."""
    t = np.arange(int(seconds * 8000)) / 8000
    buzz = sum(np.sin(2 * np.pi * 130 * k * t) / k for k in range(1, 20))
    syllable = np.where(t % 0.25 < 0.19, np.sin(np.pi * np.minimum(t % 0.25 / 0.19, 1)) ** 0.5, 0)
    sound = buzz * syllable
    return np.asarray(sound / np.sqrt(np.mean(sound**2)) * 32768 * 10 ** (dbfs / 20))


def frames(*sounds: npt.NDArray[np.float64]) -> list[bytes]:
    samples = np.clip(np.rint(np.concatenate(sounds)), -32768, 32767).astype("<i2")
    return [samples[at : at + 160].tobytes() for at in range(0, len(samples) - 159, 160)]


def states(vad: EnergyVad, all_frames: list[bytes]) -> list[VadState]:
    return [vad.push(frame, index * FRAME_S) for index, frame in enumerate(all_frames)]


def share_voiced(found: list[VadState]) -> float:
    return sum(state in (SPEAKING, STOPPING) for state in found) / len(found)


LOUD, SOFT = frames(noise(0.02, -20))[0], bytes(320)


@pytest.mark.parametrize(
    ("history", "loud", "expected"),
    [
        ([], True, STARTING),
        ([], False, QUIET),
        ([LOUD], True, STARTING),
        ([LOUD], False, QUIET),
        ([LOUD] * 2, True, SPEAKING),
        ([LOUD] * 3, True, SPEAKING),
        ([LOUD] * 3, False, STOPPING),
        ([LOUD] * 3 + [SOFT], False, STOPPING),
        ([LOUD] * 3 + [SOFT], True, SPEAKING),
        ([LOUD] * 3 + [SOFT] * 3, False, QUIET),
    ],
)
def test_every_state_with_every_frame(history: list[bytes], loud: bool, expected: VadState) -> None:
    vad = EnergyVad(start_frames=3, stop_frames=4)
    states(vad, history)
    assert vad.push(LOUD if loud else SOFT, 0.0) is expected
    assert vad.state is expected


def test_levels() -> None:
    assert level_dbfs(np.full(160, -32768, "<i2").tobytes()) == pytest.approx(0.0, abs=0.01)
    sine = np.rint(3276.8 * np.sin(np.arange(160) * 2 * np.pi / 16)).astype("<i2").tobytes()
    assert level_dbfs(sine) == pytest.approx(-23.01, abs=0.05)
    assert level_dbfs(bytes(320)) == -96.0
    assert level_dbfs(b"") == -96.0


@pytest.mark.parametrize(("dbfs", "expected"), [(-42.0, QUIET), (-38.0, SPEAKING)])
def test_the_default_threshold_is_40_dbfs(dbfs: float, expected: VadState) -> None:
    assert states(EnergyVad(), frames(noise(0.2, dbfs)))[-1] is expected


@pytest.mark.parametrize("click_ms", [1, 5, 20, 35])
def test_clicks_are_no_speech(click_ms: int) -> None:
    """Shorter than the time to confirm, wherever it falls in the frames."""
    for offset in range(0, 160, 40):
        sound = np.zeros(8000)
        sound[2000 + offset : 2000 + offset + click_ms * 8] = 20_000
        assert share_voiced(states(EnergyVad(), frames(sound))) == 0


@pytest.mark.parametrize("line_dbfs", [-60.0, -50.0, -41.0, -36.0, -32.0])
def test_a_noisy_line_is_no_speech_and_speech_over_it_is(line_dbfs: float) -> None:
    vad = EnergyVad()
    states(vad, frames(noise(3, line_dbfs)))  # it needs 2.4 s to know the line
    assert share_voiced(states(vad, frames(noise(5, line_dbfs, seed=2)))) == 0
    spoken = babble_of_syllables(4, line_dbfs + 18)
    assert share_voiced(states(vad, frames(spoken + noise(4, line_dbfs, seed=3)))) > 0.8
    after = states(vad, frames(noise(2, line_dbfs, seed=4)))
    assert share_voiced(after[25:]) == 0


def test_a_quiet_caller_on_a_quiet_line_is_heard() -> None:
    vad = EnergyVad()
    states(vad, frames(noise(3, -70)))
    assert share_voiced(states(vad, frames(babble_of_syllables(4, -43) + noise(4, -70, seed=2)))) > 0.8


def test_long_speech_does_not_become_the_noise_floor() -> None:
    found = states(EnergyVad(), frames(babble_of_syllables(30, -25) + noise(30, -65)))
    assert share_voiced(found[10:]) > 0.95


def test_a_line_that_becomes_noisy_is_known_again_after_the_window() -> None:
    vad = EnergyVad()
    states(vad, frames(noise(3, -60)))
    found = states(vad, frames(noise(8, -36, seed=2)))
    assert share_voiced(found[150:]) == 0


def test_digital_silence_between_does_not_make_it_deaf_or_wild() -> None:
    """Asterisk sends nothing while the far end is silent; those frames come as zeros."""
    vad = EnergyVad()
    states(vad, [SOFT] * 300)
    assert vad.threshold_dbfs == -46.0
    assert share_voiced(states(vad, frames(noise(1, -50)))) == 0


def test_vowels_held_for_over_a_second_stay_speech() -> None:
    """Only a sound longer than the window of 2.4 s is taken for the line."""
    t = np.arange(8000 * 15) / 8000
    vowel = 3000 * np.sin(2 * np.pi * 150 * t) * (t % 1.8 < 1.65)
    found = states(EnergyVad(), frames(vowel + noise(15, -65)))
    assert all(state in (SPEAKING, STOPPING) for state in found[20:])


def test_frames_that_never_came_do_not_make_a_noisy_line_speech() -> None:
    """What was lost or not sent is filled with digital silence; the noise around it stays noise."""
    vad = EnergyVad()
    line = frames(noise(8, -35))
    line[10::25] = [bytes(320)] * len(line[10::25])
    found = states(vad, line)
    assert share_voiced(found[200:]) == 0
