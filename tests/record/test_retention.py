"""What is deleted and what is kept."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.record.recorder import Recorder, RecorderSettings
from ari_app.record.retention import Kept, Tidier, to_delete
from tests.fakes.small_disk import ROOT

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
    while not recorder.directory.exists():
        time.sleep(0.01)
    os.utime(recorder.directory, (NOW - 5000 * DAY_S,) * 2)
    others = [
        call_folder(tmp_path, "my holiday pictures", 5000),
        call_folder(tmp_path, "serve_2020_x", 5000),
        tmp_path / "a file",
        tmp_path / "serve_20200101-120000_ffffffffffff",
    ]
    others[2].touch()
    others[3].symlink_to(others[0])
    tidier = Tidier(tmp_path, max_age_s=30 * DAY_S, max_bytes=0)
    tidier.tidy()
    assert not old.exists() and recorder.directory.exists()
    assert all(other.exists() for other in others)
    recorder.close()
    assert [call.path for call in tidier.finished()] == [recorder.directory]


def test_without_a_folder_there_is_nothing_to_do(tmp_path: Path) -> None:
    tidier = Tidier(tmp_path / "none", max_age_s=1, max_bytes=1)
    tidier.tidy()
    assert tidier.finished() == []


UNDELETABLE = """
import logging, os, sys
from pathlib import Path
from ari_app.record.retention import Tidier
logging.basicConfig(stream=sys.stdout, format="%(message)s")
tidier = Tidier(Path("."), max_age_s=1, max_bytes=0)
if os.geteuid() == 0:
    os.setuid(65534)
tidier.tidy()
tidier.tidy()
print(sorted(os.listdir(".")))
"""


def test_what_can_t_be_deleted_is_named_once_and_does_not_keep_the_rest() -> None:
    """By somebody who is not root, whom no folder resists."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o777)
        folders = [
            call_folder(root, f"serve_2020010{number}-120000_{number}", 5000 - number)
            for number in range(1, 5)
        ]
        if os.geteuid() == 0:
            for path in (path for folder in folders for path in (folder / "full_call.wav", folder)):
                os.chown(path, 65534, 65534)
        folders[0].chmod(0o500)
        folders[2].chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", UNDELETABLE],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        *named, left = done.stdout.splitlines()
        assert len(named) == 2, "each once"
        for folder in (folders[0], folders[2]):
            assert any(folder.name in line and "Permission denied" in line for line in named)
        assert left == repr([folders[0].name, folders[2].name])
        for folder in (folders[0], folders[2]):
            folder.chmod(0o700)


def test_folders_that_vanish_meanwhile_are_nobody_s_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two servers tidy one folder, or somebody deletes by hand."""
    for number in range(100):
        folder = call_folder(tmp_path, f"serve_20200101-120000_{number:x}", 5000)
        for file in range(20):
            (folder / f"segment_{file}.wav").touch()
        os.utime(folder, (NOW - 5000 * DAY_S,) * 2)
    tidiers = [Tidier(tmp_path, max_age_s=DAY_S, max_bytes=0) for _ in range(4)]
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(tidier.tidy) for tidier in tidiers]:
            done.result()
    for tidier in tidiers:
        tidier.tidy()
    assert list(tmp_path.iterdir()) == []
