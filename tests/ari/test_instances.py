"""Which instances live: one per tag, and the dead are found, whatever killed them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ari_app.ari import instances
from ari_app.ari.instances import Instance
from ari_app.errors import ConfigError, SetupError

URL = "http://127.0.0.1:8088"
OURS, OTHER = "0" * 8, "1" * 8

HOLDER = """
import sys
from pathlib import Path
from ari_app.ari.instances import Instance
with Instance(Path(sys.argv[1]), sys.argv[2], sys.argv[3], "bot"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(state_dir: Path, tag: str, url: str = URL) -> subprocess.Popen[str]:
    """Another process that holds the tag until it is killed or its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state_dir), tag, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str], *, kill: bool) -> None:
    if kill:
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)


def test_a_tag_has_one_living_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "PATIENCE_S", 0.1)
    process = holder(tmp_path, OURS)
    with (
        pytest.raises(ConfigError, match="set ARI_APP to another name"),
        Instance(tmp_path, OURS, URL, "bot"),
    ):
        pass
    end(process, kill=True)
    with Instance(tmp_path, OURS, URL, "bot"), Instance(tmp_path, OTHER, URL, "bot"):
        pass
    assert list((tmp_path / "instances").iterdir()) == []


def test_the_dead_of_this_asterisk_are_found_and_then_forgotten(tmp_path: Path) -> None:
    killed, ended = holder(tmp_path, "a" * 8), holder(tmp_path, "b" * 8)
    elsewhere, alive = holder(tmp_path, "c" * 8, "http://127.0.0.1:9"), holder(tmp_path, "d" * 8)
    end(killed, kill=True)
    end(elsewhere, kill=True)
    end(ended, kill=False)
    (tmp_path / "instances" / "notes.txt").write_text("not ours")
    with Instance(tmp_path, OURS, URL, "bot") as instance:
        with pytest.raises(RuntimeError), instance.dead() as dead:
            raise RuntimeError("the sweep failed: they are remembered")
        with instance.dead() as dead:
            dead.remove("a" * 8)  # something of it is left
        with instance.dead() as dead:
            assert dead == {"a" * 8}
        with instance.dead() as dead:
            assert dead == set()
    end(alive, kill=False)
    left = {path.name for path in (tmp_path / "instances").iterdir()}
    assert left == {"notes.txt", "c" * 8 + ".lock"}


def test_a_sweep_does_not_keep_the_swept_from_starting(tmp_path: Path) -> None:
    end(holder(tmp_path, OTHER), kill=True)
    with Instance(tmp_path, OURS, URL, "bot") as instance, ThreadPoolExecutor(1) as thread:
        with instance.dead() as dead:
            assert dead == {OTHER}
            started = thread.submit(Instance(tmp_path, OTHER, URL, "bot2").__enter__)
            time.sleep(0.1)
            assert not started.done()
        started.result(timeout=20).__exit__(None, None, None)


def test_an_unusable_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "instances").write_text("a file")
    with pytest.raises(SetupError, match="cannot keep a file in"), Instance(tmp_path, OURS, URL, "bot"):
        pass
