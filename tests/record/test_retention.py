"""What is deleted and what is kept."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ari_app.record.recorder import Recorder, RecorderSettings
from ari_app.record.retention import Kept, finished, tidy, to_delete

DAY_S = 86400
NOW = 1_800_000_000.0


def kept(days_old: float, size_bytes: int) -> Kept:
    return Kept(Path(f"{days_old}"), NOW - days_old * DAY_S, size_bytes)


def test_the_oldest_go_first() -> None:
    calls = [kept(1, 50), kept(40, 10), kept(3, 60), kept(2, 5)]
    assert to_delete(calls, NOW, max_age_s=30 * DAY_S, max_bytes=60) == [calls[1], calls[2]]
    assert to_delete(calls, NOW, max_age_s=0, max_bytes=0) == []


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 1000)), max_size=20),
    st.integers(0, 50),
    st.integers(0, 3000),
)
def test_what_remains_fits(calls: list[tuple[float, int]], max_days: int, max_bytes: int) -> None:
    all_calls = [kept(*call) for call in calls]
    doomed = to_delete(all_calls, NOW, max_age_s=max_days * DAY_S, max_bytes=max_bytes)
    rest = list(all_calls)
    for call in doomed:
        rest.remove(call)
    if max_days:
        assert all(NOW - call.ended_at <= max_days * DAY_S for call in rest)
    if max_bytes:
        assert sum(call.size_bytes for call in rest) <= max_bytes
    if doomed and rest:
        assert max(call.ended_at for call in doomed) <= min(call.ended_at for call in rest)


def call_folder(root: Path, name: str, days_old: float) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "full_call.wav").write_bytes(bytes(1000))
    os.utime(folder, (NOW - days_old * DAY_S,) * 2)
    return folder


def test_only_finished_calls_of_ours_are_deleted(tmp_path: Path) -> None:
    old = call_folder(tmp_path, "serve_20200101-120000_aabbccddeeff", 5000)
    recorder = Recorder(
        tmp_path / "dial_20200101-120001_aabbccddee00",
        settings=RecorderSettings(),
        started_at=0,
        about={},
    )
    os.utime(recorder.directory, (NOW - 5000 * DAY_S,) * 2)
    others = [
        call_folder(tmp_path, "my holiday pictures", 5000),
        call_folder(tmp_path, "serve_2020_x", 5000),
        tmp_path / "a file",
        tmp_path / "serve_20200101-120000_ffffffffffff",
    ]
    others[2].touch()
    others[3].symlink_to(others[0])
    tidy(tmp_path, max_age_s=30 * DAY_S, max_bytes=0)
    assert not old.exists() and recorder.directory.exists()
    assert all(other.exists() for other in others)
    recorder.close()
    assert [call.path for call in finished(tmp_path)] == [recorder.directory]


def test_without_a_folder_there_is_nothing_to_do(tmp_path: Path) -> None:
    tidy(tmp_path / "none", max_age_s=1, max_bytes=1)
