"""Lost sound: its length, its fade, and no clicks at either end."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.rtp.conceal import FADE_SAMPLES, Concealer

FRAME = 160


def tone(hz: float, frames: int, level: float = 10000) -> list[bytes]:
    t = np.arange(frames * FRAME) / 8000
    pcm = np.rint(level * np.sin(2 * np.pi * hz * t)).astype("<i2").tobytes()
    return [pcm[i : i + 2 * FRAME] for i in range(0, len(pcm), 2 * FRAME)]


def samples(pcm: bytes) -> npt.NDArray[np.float64]:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def play(frames: list[bytes], lost: range) -> npt.NDArray[np.float64]:
    concealer = Concealer()
    out = b""
    for index, frame in enumerate(frames):
        out += concealer.missing(FRAME) if index in lost else concealer.heard(frame)
    return samples(out)


def test_without_loss_not_a_bit_changes() -> None:
    frames = tone(300, 20)
    concealer = Concealer()
    assert [concealer.heard(frame) for frame in frames] == frames


@pytest.mark.parametrize("hz", [130, 210, 333, 440])
@pytest.mark.parametrize("lost", [range(10, 11), range(10, 12), range(10, 14), range(10, 30)])
def test_no_step_is_larger_than_in_the_sound_itself(hz: float, lost: range) -> None:
    frames = tone(hz, 40)
    own_step = np.abs(np.diff(samples(b"".join(frames)))).max()
    # Blending over 5 ms adds at most the difference of both, a 40th per sample.
    assert np.abs(np.diff(play(frames, lost))).max() <= own_step + 2 * 10000 / 40


def test_it_fades_to_silence_by_60_ms_and_stays_there() -> None:
    out = play(tone(440, 20), range(10, 20))[10 * FRAME :]
    levels = [np.abs(out[at : at + FRAME]).max() for at in range(0, len(out), FRAME)]
    assert 5000 < levels[0] <= 10000
    assert levels[0] > levels[1] > levels[2] > 0
    assert not out[FADE_SAMPLES:].any()


def test_after_the_gap_the_sound_is_itself_within_5_ms() -> None:
    frames = tone(440, 20)
    out = play(frames, range(10, 13))
    assert (out[13 * FRAME + 40 :] == samples(b"".join(frames))[13 * FRAME + 40 :]).all()


def test_nothing_heard_yet_is_silence() -> None:
    assert Concealer().missing(500) == bytes(1000)


@given(st.binary(max_size=800), st.lists(st.integers(0, 900), max_size=6))
def test_length_is_kept_whatever_the_sound(data: bytes, gaps: list[int]) -> None:
    pcm = data[: len(data) // 2 * 2]
    concealer = Concealer()
    assert len(concealer.heard(pcm)) == len(pcm)
    for gap in gaps:
        assert len(concealer.missing(gap)) == 2 * gap
    assert len(concealer.heard(pcm)) == len(pcm)
