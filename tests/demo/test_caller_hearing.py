"""Where sound begins and ends, and following a recording that grows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ari_app.demo.hearing import WAV_HEADER_BYTES, GrowingRecording, sound_span

MS = 16  # bytes


def tone(ms: int, level_dbfs: float = -20.0) -> bytes:
    samples = np.sin(np.arange(ms * 8) * 2 * np.pi * 440 / 8000) * 2**0.5 * 10 ** (level_dbfs / 20)
    return np.round(samples * 32767).astype("<i2").tobytes()


def quiet(ms: int) -> bytes:
    return bytes(ms * MS)


@pytest.mark.parametrize(
    ("pcm", "expected_ms"),
    [
        (b"", None),
        (quiet(1000), None),
        (quiet(100) + tone(200) + quiet(300), (100, 300)),
        (quiet(100) + tone(200) + quiet(300) + tone(100), (100, 700)),
        (tone(200), (0, 200)),
        (quiet(100) + tone(40) + quiet(100), None),  # a click
        (quiet(100) + tone(40) + quiet(100) + tone(60), (240, 300)),
        (quiet(100) + tone(200, -60) + quiet(100), None),
        (quiet(100) + tone(200)[:-1], (100, 280)),  # half a frame is not looked at yet
    ],
)
def test_span_of_sound(pcm: bytes, expected_ms: tuple[int, int] | None) -> None:
    expected = None if expected_ms is None else (expected_ms[0] * MS, expected_ms[1] * MS)
    assert sound_span(pcm) == expected


def test_recording_is_dated_by_the_piece_seen_soonest(tmp_path: Path) -> None:
    # Recording began at 100.0. Its seconds become visible late: by 200 ms, by 50 ms, and by 150 ms.
    path = tmp_path / "heard.wav"
    recording = GrowingRecording(path)
    assert not recording.poll(100.5)

    path.write_bytes(bytes(WAV_HEADER_BYTES) + quiet(1000))
    assert recording.poll(101.2)
    for piece, seen_at in ((quiet(500) + tone(200) + quiet(300), 102.05), (quiet(1000), 103.15)):
        with path.open("ab") as file:
            file.write(piece)
        assert recording.poll(seen_at)
    assert not recording.poll(103.16)

    heard = recording.heard(0)
    assert len(heard.pcm) == 3000 * MS
    assert heard.first_sound_at == pytest.approx(100.05 + 1.5)
    assert heard.last_sound_at == pytest.approx(100.05 + 1.7)
    assert heard.sound_s == pytest.approx(0.2)
    assert recording.position_at(101.05) == 1000 * MS
    assert recording.position_at(99.0) == 0
    assert recording.heard(1800 * MS).first_sound_at is None
