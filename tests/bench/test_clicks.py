"""What the benchmark reads from the recording of clicks."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from bench.clicks import CLICK_SAMPLES, Alignment, Caller, alignment, gaps, plan


def write(
    path: Path, left: dict[int, int], right: dict[int, int], seconds: int = 12, length: int = 16
) -> Path:
    """A recording with a sound of a level at each of these samples."""
    stereo = np.zeros((seconds * 8000, 2), "<i2")
    for column, side in enumerate((left, right)):
        for at, level in side.items():
            stereo[at : at + length, column] = level
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(stereo.tobytes())
    return path


def test_distances_are_told_by_the_sample(tmp_path: Path) -> None:
    """The second click is 5 ms late on the left, its echo 20 ms, of which the wire knows 10."""
    path = write(
        tmp_path / "a.wav",
        dict.fromkeys((8000, 16040, 24000), 15000),
        dict.fromkeys((8160, 16320, 24160), -15000),
    )
    found = alignment(path, [100.0, 101.0, 102.0], [100.03, 101.04, 102.03])
    assert found.echo_ms == pytest.approx([20, 35, 20])
    assert found.caller_off_ms == pytest.approx([0, 5, 0], abs=1e-6)
    assert found.bot_off_ms == pytest.approx([0, 10, 0], abs=1e-6)
    assert found.round_trip_ms == pytest.approx([30, 40, 30])
    assert found.beside_ms == pytest.approx([10, 5, 10])


def test_a_drift_is_from_the_first_few_clicks_to_the_last_few() -> None:
    late_packet = 500.0
    found = Alignment(
        echo_ms=[20.0] * 9,
        caller_off_ms=[0, 1, 0, 5, 9, 9, 12, 11, 12],
        bot_off_ms=[0, late_packet, 0, 0, 0, 0, 0, 0, late_packet],
        round_trip_ms=[30, 31, 30, 30, 30, 30, 24, 25, 25],
    )
    assert found.drift_ms == {"beside": 5, "caller": 12, "bot": 0}


@pytest.mark.parametrize("missing", [0, 1])
def test_a_click_that_is_missing_is_told(missing: int, tmp_path: Path) -> None:
    left, right = {8000: 15000, 16000: 15000}, {8160: 15000, 16160: 15000}
    (left, right)[missing].popitem()
    path = write(tmp_path / "a.wav", left, right)
    with pytest.raises(ValueError, match="2 clicks were sent and 2 came back"):
        alignment(path, [1.0, 2.0], [1.03, 2.03])


def test_gaps_are_from_the_callers_last_frame_to_the_bots_first(tmp_path: Path) -> None:
    """The greeting waits for nobody; a pause within an answer begins no other."""
    left = {16000: 50, 16000 + 160: 9000, 56000: 9000}
    right = {1600: 9000, 16160 + 8000: 9000, 16160 + 8000 + 800: 9000, 56000 + 1600: 9000}
    path = write(tmp_path / "a.wav", left, right, length=160)
    assert gaps(path) == pytest.approx([1000, 200])


def test_a_plan_says_how_each_caller_behaves() -> None:
    given = plan([Caller(), Caller(clock_ppm=200)], [30002, 30004], seconds=20, every_s=1)
    assert given["every_frames"] == 50 and given["ports"] == [30002, 30004]
    assert [Caller(**ways).clock_ppm for ways in given["callers"]] == [0, 200]
    assert CLICK_SAMPLES < 160
