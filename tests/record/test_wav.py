from __future__ import annotations

import stat
import wave
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ari_app.record.files import PlainFile
from ari_app.record.wav import MAX_SKEW_BYTES, GrowingWav, StereoAligner, write_wav


def pcm(*samples: int) -> bytes:
    return np.array(samples, "<i2").tobytes()


FRAME = 160


def test_both_directions_are_interleaved_left_is_the_caller() -> None:
    aligner = StereoAligner(5.0)
    aligner.push_left(pcm(1, 2, 3), 5.0)
    aligner.push_right(pcm(10, 20), 5.001)
    assert aligner.take() == pcm(1, 10, 2, 20)
    aligner.push_right(pcm(30), 5.02)
    assert aligner.take() == pcm(3, 30)
    assert aligner.take(final=True) == b""


def test_a_direction_that_stopped_is_filled_with_silence_at_the_end() -> None:
    aligner = StereoAligner(5.0)
    aligner.push_left(pcm(1, 2, 3), 5.0)
    aligner.push_right(pcm(10), 5.0)
    assert aligner.take(final=True) == pcm(1, 10, 2, 0, 3, 0)


def test_a_direction_that_stopped_holds_the_other_back_by_seconds_at_most() -> None:
    aligner = StereoAligner(5.0)
    aligner.push_right(bytes(MAX_SKEW_BYTES + 640), 5.0)
    assert len(aligner.take()) == 2 * 640


def numbered(first: int, frames: int) -> bytes:
    """Frames whose samples tell which they are."""
    return b"".join(pcm(*[number] * FRAME) for number in range(first, first + frames))


@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=8
    )
)
def test_after_a_stall_of_any_length_both_sides_are_where_they_were(
    spans: list[tuple[int, bool, bool, bool]],
) -> None:
    """Each span is time in which the loop stood still; then one side is told of all of it, and then the other."""
    aligner, out, first = StereoAligner(0.02), bytearray(), 1
    late = {0: 0, 1: 0}
    for frames, right_first, take_between, take_after in spans:
        sides = [aligner.push_left, aligner.push_right]
        for push in reversed(sides) if right_first else sides:
            push(numbered(first, frames), 0.02 * first)
            if take_between and push is sides[0 if not right_first else 1]:
                out += aligner.take()
                late[1 if not right_first else 0] += max(frames - MAX_SKEW_BYTES // 320, 0)
        first += frames
        if take_after:
            out += aligner.take()
    out += aligner.take(final=True)
    stereo = np.frombuffer(bytes(out), "<i2").reshape(-1, FRAME, 2)[:, 0, :]
    assert len(stereo) == first - 1
    place = np.arange(1, first)
    for side in (0, 1):
        told = stereo[:, side]
        assert ((told == place) | (told == 0)).all(), "nothing stands where it was not heard"
        assert (told == 0).sum() <= late[side], "and nothing is lost that came in time"


@given(st.integers(0, 40), st.floats(-0.009, 0.009), st.booleans())
def test_the_direction_that_begins_later_has_its_place(late: int, jitter_s: float, left: bool) -> None:
    aligner = StereoAligner(5.0)
    early, later = (
        (aligner.push_right, aligner.push_left) if left else (aligner.push_left, aligner.push_right)
    )
    early(pcm(*[1] * FRAME * (late + 1)), 5.0)
    later(pcm(*[2] * FRAME), max(5.0 + 0.02 * late + jitter_s, 5.0))
    stereo = np.frombuffer(aligner.take(final=True), "<i2").reshape(-1, 2)
    assert len(stereo) == FRAME * (late + 1)
    assert stereo[:, 0 if left else 1].tolist() == [0] * FRAME * late + [2] * FRAME


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 50)), max_size=60))
def test_alignment_never_depends_on_how_the_pieces_arrive(pieces: list[tuple[bool, int]]) -> None:
    aligner = StereoAligner(5.0)
    out = bytearray()
    counts = {True: 0, False: 0}
    for left, length in pieces:
        samples = pcm(*range(counts[left] + 1, counts[left] + length + 1))
        counts[left] += length
        (aligner.push_left if left else aligner.push_right)(samples, 5.0)
        out += aligner.take()
    out += aligner.take(final=True)
    stereo = np.frombuffer(bytes(out), "<i2").reshape(-1, 2)
    assert len(stereo) == max(counts.values())
    for column, left in ((0, True), (1, False)):
        expected = list(range(1, counts[left] + 1)) + [0] * (len(stereo) - counts[left])
        assert stereo[:, column].tolist() == expected


def test_an_unclosed_file_is_already_playable_and_private(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    growing = GrowingWav(PlainFile(path), channels=2)
    growing.write(pcm(1, 2, 3, 4))
    growing.write(pcm(5, 6))
    with wave.open(str(path)) as reader:  # while the writer still holds it, as after a kill
        assert (reader.getnchannels(), reader.getframerate(), reader.getnframes()) == (2, 8000, 3)
        assert reader.readframes(3) == pcm(1, 2, 3, 4, 5, 6)
    growing.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_write_wav_states_its_rate(tmp_path: Path) -> None:
    write_wav(PlainFile(tmp_path / "a.wav"), pcm(7, 8), rate_hz=16000)
    with wave.open(str(tmp_path / "a.wav")) as reader:
        assert (reader.getframerate(), reader.readframes(2)) == (16000, pcm(7, 8))
