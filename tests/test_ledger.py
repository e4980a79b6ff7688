"""The ledger of outbound calls over processes, crashes and damaged files."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ari_app import ledger as ledger_module
from ari_app.errors import LimitReached, SetupError
from ari_app.guard import Rules
from ari_app.ledger import Ledger

CRASH = """
import sys, time
from pathlib import Path
from ari_app.guard import Rules
from ari_app.ledger import Ledger
with Ledger(Path(sys.argv[1]), Rules(concurrent=1)).call("dead", 600):
    print("calling", flush=True)
    time.sleep(60)
"""


def entries(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((folder / "dialled" / "ledger.json").read_text())
    return found


def test_a_call_is_written_down_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Rules())
    with ledger.call("a", 60):
        assert [(e["call_id"], e["ended_at"]) for e in entries(tmp_path)] == [("a", None)]
    (entry,) = entries(tmp_path)
    assert entry["ended_at"] is not None


def test_places_are_taken_and_given_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Rules(concurrent=2))
    with ledger.call("a", 60), ledger.call("b", 60):
        assert "DIAL_CONCURRENT" in (ledger.why_not() or "")
        with pytest.raises(LimitReached, match="DIAL_CONCURRENT"), ledger.call("c", 60):
            pytest.fail("a third call began")
    assert ledger.why_not() is None


def test_a_refused_call_is_not_written_down(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Rules(per_minute=1))
    with ledger.call("a", 60):
        pass
    with pytest.raises(LimitReached, match="DIAL_PER_MINUTE"), ledger.call("b", 60):
        pytest.fail("it began")
    assert [e["call_id"] for e in entries(tmp_path)] == ["a"]


def test_a_killed_process_frees_its_place_and_its_minutes_count(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", CRASH, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"calling\n"
        rules = Rules(concurrent=1)
        assert "DIAL_CONCURRENT" in (Ledger(tmp_path, rules).why_not() or "")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert Ledger(tmp_path, rules).why_not() is None
    assert [(e["call_id"], e["ended_at"]) for e in entries(tmp_path)] == [("dead", None)]
    assert Ledger(tmp_path, rules).remaining_s() < rules.daily_minutes * 60


def entry(**changed: object) -> str:
    return json.dumps([{"call_id": "a", "started_at": 4e9, "limit_s": 60, "ended_at": None} | changed])


@pytest.mark.parametrize(
    "content",
    [
        *("{", '[{"x": 1}]', "3", '["a"]', "[" * 100_000, "[" + "1" * 5000 + "]"),
        *(entry(started_at=None), entry(started_at="now"), entry(started_at=float("nan")), entry(limit_s=[])),
        *(entry(limit_s=float("inf")), entry(limit_s=-1e9), entry(ended_at="x"), entry(ended_at=10**400)),
        *(entry(ended_at=""), entry(ended_at=[])),
        entry(call_id=5),
    ],
)
def test_a_damaged_ledger_stops_calls_with_a_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / "dialled").mkdir()
    (tmp_path / "dialled" / "ledger.json").write_text(content)
    ledger = Ledger(tmp_path, Rules())
    with pytest.raises(SetupError, match="delete it"), ledger.call("a", 60):
        pytest.fail("it began")
    for ask in (ledger.why_not, ledger.remaining_s):
        with pytest.raises(SetupError, match="delete it"):
            ask()


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(SetupError, match="cannot keep a file"),
        Ledger(tmp_path / "file", Rules()).call("a", 60),
    ):
        pytest.fail("it began")


def test_a_lock_that_is_not_given_back_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped, or whose disk hangs, holds it."""
    monkeypatch.setattr(ledger_module, "LOCK_S", 0.1)
    ledger = Ledger(tmp_path, Rules())
    (tmp_path / "dialled").mkdir()
    with (tmp_path / "dialled" / "ledger.lock").open("w") as file, ledger.call("a", 60):
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SetupError, match="another process has kept .*ledger.lock locked"):
            ledger.remaining_s()
        with pytest.raises(SetupError, match="ledger.lock"), ledger.call("b", 60):
            pytest.fail("it began")
        freed = threading.Timer(0.3, fcntl.flock, (file, fcntl.LOCK_UN))
        freed.start()  # the end is waited for longer: else the call would count as long as it might have lasted
    assert [(e["call_id"], e["ended_at"] is None) for e in entries(tmp_path)] == [("a", False)]


def _call_often(folder: Path, name: str) -> None:
    ledger = Ledger(folder, Rules(concurrent=8, per_minute=600))
    for number in range(20):
        with ledger.call(f"{name}{number}", 60):
            pass


def test_processes_lose_nothing_of_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_call_often, args=(tmp_path, name)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert len(entries(tmp_path)) == 60
    assert all(entry["ended_at"] for entry in entries(tmp_path))
