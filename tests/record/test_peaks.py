"""What a picture of a recording is made of, against a plain reckoning."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.record import peaks as peaks_module
from ari_app.record.peaks import peaks_of


def leave(path: Path, samples: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(2)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(samples.astype("<i2").tobytes())
    return path


@given(
    count=st.integers(0, 700), columns=st.integers(1, 200), piece=st.integers(1, 300), seed=st.integers(0, 9)
)
def test_each_column_shows_its_loudest_sample(
    tmp_path_factory: pytest.TempPathFactory, count: int, columns: int, piece: int, seed: int
) -> None:
    """However the file is cut into pieces."""
    samples = np.random.default_rng(seed).integers(-32768, 32767, (count, 2))
    path = leave(tmp_path_factory.mktemp("peaks") / "full_call.wav", samples)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(peaks_module, "PIECE_FRAMES", piece)
        found = peaks_of(path, columns)
    width = max(min(columns, count), 1)
    expected = np.zeros((width, 2))
    for number, pair in enumerate(np.abs(samples)):
        column = number * width // count
        expected[column] = np.maximum(expected[column], pair)
    assert found.seconds == count / 8000
    np.testing.assert_array_equal(found.caller * 32768, expected[:, 0])
    np.testing.assert_array_equal(found.bot * 32768, expected[:, 1])


def test_a_file_that_is_shorter_than_it_says(tmp_path: Path) -> None:
    path = leave(tmp_path / "full_call.wav", np.full((800, 2), 16384))
    path.write_bytes(path.read_bytes()[: 44 + 400 * 4 + 3])
    found = peaks_of(path, 10)
    assert found.seconds == 400 / 8000 and set(found.caller) == set(found.bot) == {0.5}
