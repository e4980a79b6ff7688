"""`python -m ari_app calls` over folders as the recorder leaves them."""

from __future__ import annotations

import fcntl
import io
import json
import os
import stat
import subprocess
import sys
import time
import wave
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app import cli
from ari_app.dialog import ports
from ari_app.record.archive import Archive, read_events, summary
from ari_app.record.recorder import Recorder, RecorderSettings
from ari_app.record.report import percentile, story
from ari_app.record.seal import messages, seal_for
from tests.fakes.small_disk import ROOT

IDENTITY = pyrage.x25519.Identity.generate()
LOUD = np.full(160, 4000, "<i2").tobytes()


def leave_call(
    root: Path,
    number: int,
    *,
    gap_s: float = 1.2,
    ended: bool = True,
    sealed: bool = False,
    used: Sequence[ports.EngineUsed] = (ports.EngineUsed(1, "realtime", "m", {"audio_out": 10}, 0.02, 0.02),),
) -> Path:
    """A call of ten seconds and one turn."""
    settings = RecorderSettings(seal=seal_for(str(IDENTITY.to_public())) if sealed else None)
    recorder = Recorder(
        root / f"serve_20261101-12000{number}_{number:012x}",
        settings=settings,
        started_at=100.0,
        about={
            "call": f"{number:012x}",
            "direction": "inbound",
            "from": "+491\x1b[31m",
            "to": "100",
            "started": "2026-11-01T11:00:00+00:00",
        },
    )
    for _ in range(500):
        recorder.push_caller(LOUD, 100.0)
        recorder.push_bot(LOUD, 100.0)
    recorder.push_fact(ports.BotSpeechStarted(0, 100.1))
    recorder.push_fact(ports.BotSaid(0, "Hello. How are you?", "Hello.", True, LOUD))
    recorder.push_fact(ports.BargeIn(0, 102.1, 102.0))
    recorder.push_fact(ports.CallerSpeechStarted(102.1, 102.0))
    recorder.push_fact(ports.CallerSaid(1, "$5 & <more>", "en", LOUD))
    recorder.push_fact(ports.TurnTimed(1, 103.0, 104.0, 103.4, 103.5, 103.6, 103.7, 103.0 + gap_s))
    recorder.push_fact(ports.BotSpeechStarted(1, 104.2))
    recorder.push_fact(ports.BotSaid(1, "Five dollars.", "Five dollars.", False, LOUD))
    recorder.push_fact(ports.BargeInDismissed(1, 105.0, 480.0, ""))
    recorder.push_fact(ports.EngineFailed(2, "chat", "no answer", False, "timeout"))
    for fact in used:
        recorder.push_fact(fact)
    if ended:
        recorder.note("ended", outcome="answered", by="far", reason="answered; hung up", line={"mos": 4.2})
    recorder.close()
    return recorder.directory


USED = (
    ports.EngineUsed(1, "speech-to-text", "ear", {"audio_ms": 1600}, 0.01, 0.01),
    ports.EngineUsed(1, "chat", "mind", {"uncounted": 1}, None, 0.01, True),
    ports.EngineUsed(1, "speech-to-text", "ear", {"audio_ms": 2500}, 0.02, 0.03, True),
    ports.EngineUsed(1, "chat", "mind", {"text_in": 7, "text_in_cached": 2, "text_out": 0}, 0.3, 0.33, True),
    ports.EngineUsed(1, "text-to-speech", "mouth", {"characters": 9}, None, 0.33, True),
)


def calls(capsys: pytest.CaptureFixture[str], root: Path, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["calls", "--recordings-dir", str(root), *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_latest_calls_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "recordings"
    assert "SAVE_RECORDINGS" in calls(capsys, root)[1]
    leave_call(root, 1)
    leave_call(root, 2, ended=False)
    leave_call(root, 3, sealed=True)
    (root / "no call").mkdir()
    code, said, _ = calls(capsys, root)
    head, *rows = said.splitlines()
    assert code == 0 and head.split()[:3] == ["when", "call", "way"]
    assert [row.split()[2] for row in rows] == [f"{number:012x}" for number in (3, 2, 1)]
    assert "sealed" in rows[0] and "cut short" in rows[1]
    assert "0:10" in rows[2] and "1200 ms" in rows[2] and "$0.0200" in rows[2] and "answered" in rows[2]
    assert "\x1b" not in said, "a caller's name does not steer the terminal"
    code, said, _ = calls(capsys, root, "list", "--limit", "2", "--json")
    assert [call["sealed"] for call in json.loads(said)] == [True, False]


def test_what_a_call_cost_is_told_as_far_as_it_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_call(tmp_path, 1, used=USED)
    lines = [line.split("  ") for line in calls(capsys, tmp_path, "show", "000000000001")[1].splitlines()]
    told = [[part.strip() for part in line if part] for line in lines]
    assert ["Cost: at least $0.3300"] in told
    assert ["speech-to-text", "ear", "2 requests", "$0.0300", "4 s of sound"] in told
    assert [
        "chat",
        "mind",
        "2 requests",
        "at least $0.3000",
        "7 text in, 2 text in cached; 1 not counted",
    ] in told
    assert ["text-to-speech", "mouth", "1 request", "unknown", "9 characters"] in told
    assert "≥ $0.3300" in calls(capsys, tmp_path)[1]
    assert "at least $0.33, at least $0.3300 a call" in calls(capsys, tmp_path, "stats", "--days", "99999")[1]


@pytest.mark.parametrize(
    ("used", "shown"),
    [((), ""), (USED[-1:], "unknown"), ((ports.EngineUsed(1, "chat", "m", {}, 0.0, 0.0),), "$0.0000")],
)
def test_a_cost_that_is_unknown_or_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], used: Sequence[ports.EngineUsed], shown: str
) -> None:
    if shown == "unknown":
        used = [replace(fact, call_cost_usd=None) for fact in used]
    leave_call(tmp_path, 1, used=used)
    head, row = calls(capsys, tmp_path)[1].splitlines()
    assert row[head.index("cost") : head.index("ended")].strip() == shown


def test_one_call_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_call(tmp_path, 5)
    code, said, _ = calls(capsys, tmp_path, "show", "000000000005")
    assert code == 0
    for wanted in (
        "bot     Hello. [interrupted]",
        "caller  $5 & <more>",
        "1200 ms: silence window 1000, on the line 200\n",
        "in the silence window: speech-to-text at 400, first word at 500, first sentence at 600, first speech at 700",
        "waited 480 ms for “noise”",
        "failed: chat: no answer",
        "MOS 4.2",
        "Ended: answered; hung up",
    ):
        assert wanted in said
    lines = said.splitlines()
    bar = next(line for line in lines if "1200 ms" in line).split()[0]
    assert len(bar) == pytest.approx(40, abs=2) and bar.count(".") == pytest.approx(33, abs=1)


REALTIME = ports.TurnTimed(2, 106.0, 106.5, None, 107.297, None, 107.294, 107.301)


def test_the_list_and_the_story_of_a_realtime_call_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There are no transcript and no sentence among its marks."""
    recorder = Recorder(
        tmp_path / "serve_20261101-120007_000000000007",
        settings=RecorderSettings(),
        started_at=100.0,
        about={"call": "000000000007", "direction": "inbound"},
    )
    recorder.push_fact(REALTIME)
    recorder.push_fact(ports.TurnTimed(3, 109.0, 109.5))
    recorder.close()
    assert "1301 ms" in calls(capsys, tmp_path, "list")[1]
    story = calls(capsys, tmp_path, "show", "000000000007")[1]
    assert "1301 ms: silence window 500, first speech 794, first word 3, on the line 4\n" in story
    assert "not heard: silence window 500\n" in story


def test_the_median_wait_is_served_with_the_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever shows it takes it from there: of an even number of waits it is the mean of the middle two."""
    recorder = Recorder(
        tmp_path / "serve_20261101-120007_000000000007",
        settings=RecorderSettings(),
        started_at=100.0,
        about={"call": "000000000007", "direction": "inbound"},
    )
    for turn, wait_s in enumerate((2.0, 1.0, 1.5, 4.0), 1):
        recorder.push_fact(ports.TurnTimed(turn, 103.0, 103.5, first_frame_at=103.0 + wait_s))
    recorder.close()
    (call,) = json.loads(calls(capsys, tmp_path, "list", "--json")[1])
    assert call["wait_ms"] == 1750 and call["gaps_ms"] == [2000, 1000, 1500, 4000]
    assert "1750 ms" in calls(capsys, tmp_path)[1]


def test_a_call_without_a_sound_of_the_caller_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(
        tmp_path / "serve_20261101-120007_000000000007",
        settings=RecorderSettings(),
        started_at=100.0,
        about={"call": "000000000007", "direction": "inbound"},
    )
    recorder.note("ended", outcome="answered", reason="hung up", line={"mos": None}, unheard=True)
    recorder.close()
    assert "no audio came from the caller" in calls(capsys, tmp_path, "show", "000000000007")[1]
    leave_call(tmp_path, 1)
    assert "no audio" not in calls(capsys, tmp_path, "show", "000000000001")[1]


def test_statistics_over_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(1, 5):
        leave_call(tmp_path, number, gap_s=number)
    code, said, _ = calls(capsys, tmp_path, "stats", "--days", "100000")
    assert code == 0
    assert "4: 4 answered" in said and "2000 ms p50, 4000 ms p95, 4000 ms p99" in said
    assert "$0.08, $0.0200 a call" in said and "4 interruptions" in said
    assert "No call of that time" in calls(capsys, tmp_path, "stats", "--days", "0.00001")[1]


def test_a_picture_shows_what_was_done_in_pauses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = leave_call(tmp_path, 1)
    with (folder / "events.jsonl").open("a") as log:
        for won, requests in ((True, 3), (False, 2)):
            event = {"event": "speculated", "audio_ms": 4000, "turn": 1, "won": won, "requests": requests}
            log.write(json.dumps(event) + "\n")
    assert calls(capsys, tmp_path, "plot", "000000000001", "--output", "call.svg")[0] == 0
    drawn = (tmp_path / "call.svg").read_text()
    for words in ("silence window", "speech-to-text", "in the pause", "2 requests in vain", "1200 ms"):
        assert f"<!-- {words} -->" in drawn
    assert "3 requests" not in drawn, "they were not in vain"


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_call_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    leave_call(tmp_path, 1)
    code, said, _ = calls(capsys, tmp_path, "plot", "000000000001", "--output", f"call.{suffix}")
    assert code == 0 and said == f"call.{suffix}\n"
    drawn = (tmp_path / f"call.{suffix}").read_bytes()
    if suffix == "svg":
        ElementTree.fromstring(drawn)
    else:
        assert drawn.startswith(b"\x89PNG")


def test_a_sealed_call_is_opened_with_its_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = leave_call(tmp_path, 1, sealed=True)
    assert {path.suffix for path in folder.iterdir()} == {".age"}
    code, _, said = calls(capsys, tmp_path, "show", "000000000001")
    assert code == 2 and "unseal" in said
    (tmp_path / "key.txt").write_text(f"# mine\n{IDENTITY}\n")
    code, said, _ = calls(
        capsys, tmp_path, "unseal", "000000000001", "--identity", "key.txt", "--to", "opened"
    )
    assert code == 0
    opened = tmp_path / "opened" / folder.name
    assert [event["event"] for event in read_events(opened)][0] == "call"
    with wave.open(str(opened / "full_call.wav")) as sound:
        assert sound.getnframes() == 500 * 160
    assert "caller" in calls(capsys, tmp_path / "opened", "show", "000000000001")[1]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("show", "nothing"), "there is no recording"),
        (("show", "00000"), "several begin so"),
        (("show", "../../etc"), "there is no recording"),
        (("plot", "000000000001", "--output", "call.pdf"), ".svg or .png"),
        (("plot", "000000000001", "--output", "no/such/folder/call.svg"), "can't be written"),
        (("unseal", "000000000001", "--identity", "missing", "--to", "x"), "can't be opened"),
    ],
)
def test_what_can_t_be_done_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], wanted: str
) -> None:
    leave_call(tmp_path, 1)
    leave_call(tmp_path, 2)
    code, _, said = calls(capsys, tmp_path, *arguments)
    assert code == 2 and wanted in said and said.count("\n") == 1


def test_a_log_cut_short_by_a_kill_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    folder = leave_call(tmp_path, 1)
    log = folder / "events.jsonl"
    whole = log.read_text()
    log.write_text(whole[:-20])
    assert len(read_events(folder)) == len(whole.splitlines()) - 1


@pytest.mark.parametrize(
    "odd", ["hello\u2028world", "hello\u2029world", "hello\x85world", "hello\x0bworld\x1c"]
)
def test_what_a_caller_says_ends_no_line(tmp_path: Path, odd: str) -> None:
    recorder = Recorder(
        tmp_path / "serve_20261101-120001_000000000001", settings=RecorderSettings(), started_at=0, about={}
    )
    recorder.push_fact(ports.CallerSaid(1, odd, "en", b""))
    recorder.close()
    assert [event.get("text") for event in read_events(recorder.directory)] == [None, odd]


def test_a_call_that_goes_on_is_not_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorders = [
        Recorder(
            tmp_path / f"serve_20261101-12000{number}_{number:012x}",
            settings=RecorderSettings(seal=seal),
            started_at=0,
            about={"direction": "inbound"},
        )
        for number, seal in ((1, None), (2, seal_for(str(IDENTITY.to_public()))))
    ]
    until = time.monotonic() + 10
    while not all(any(recorder.directory.glob("events.jsonl*")) for recorder in recorders):
        assert time.monotonic() < until
        time.sleep(0.01)
    said = calls(capsys, tmp_path)[1]
    assert said.count("goes on") == 2 and "cut short" not in said
    assert "goes on" in calls(capsys, tmp_path, "show", "000000000001")[1]
    assert "1 goes on" in calls(capsys, tmp_path, "stats", "--days", "100000")[1]
    for recorder in recorders:
        recorder.close()
    said = calls(capsys, tmp_path)[1]
    assert "goes on" not in said and said.count("cut short") == 1


def test_whoever_looks_does_not_make_a_call_go_on(tmp_path: Path) -> None:
    """Two programs look at one folder at the same time, whose process was killed."""
    folder = leave_call(tmp_path, 1, ended=False)
    (folder / ".recording").touch()
    lock = os.open(folder / ".recording", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_SH)
    (call,) = Archive(tmp_path).calls()
    os.close(lock)
    assert not call.goes_on


ODD_LOGS = (
    b"",
    b"\n\n",
    b"\xff\xfe\x00garbage",
    b"[" * 100_000,
    b'"text"\n17\n[]\n{"event": 17}\n{"event": null}\n{"event": []}\n',
    b'{"event": "call", "started": 17, "direction": [], "from": {}}\n{"event": "ended", "line": 3, "outcome": 4}',
    b'{"event": "call", "started": "0001-01-01T00:00:00+14:00"}\n',
    b'{"event": "call"}\n{"event": "engine_used"}\n{"event": "engine_used", "call_cost_usd": "much"}\n',
    b'{"event": "call", "audio_ms": "0"}\n{"event": "ended", "audio_ms": NaN, "line": {"mos": "x"}}\n',
    b'{"event": "turn_timed"}\n{"event": "turn_timed", "first_frame_at": 1}\n'
    b'{"event": "turn_timed", "first_frame_at": 1, "speech_end_at": null, "transcript_at": "x"}\n',
    *(
        f'{{"event": "{name}"}}\n'.encode()
        for name in ("caller_said", "bot_said", "barge_in", "engine_failed")
    ),
    *(
        f'{{"event": "{name}", "text": 1, "at": "x", "onset_at": [], "heard": null, "interrupted": 7}}\n'.encode()
        for name in (
            "caller_said",
            "bot_said",
            "caller_speech_started",
            "barge_in_dismissed",
            "bot_speech_started",
        )
    ),
    b'{"event": "recording_paused"}\n{"event": "recording_stopped", "audio_ms": {}}\n',
    b'{"event": "caller_said", "text": "\\ud83d", "onset_at": 1}\n{"event": "ended", "reason": "$x$ \\ud83d"}\n',
)


@pytest.mark.parametrize("log", ODD_LOGS)
def test_one_odd_folder_hides_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], log: bytes
) -> None:
    leave_call(tmp_path, 1)
    for name in ("serve_20261101-120002_000000000002", "serve_99999999-999999_ff"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "events.jsonl").write_bytes(log)
    (tmp_path / "serve_20261101-120003_000000000003").mkdir()
    (tmp_path / "serve_20261101-120004_000000000004").touch()
    for arguments in ((), ("list", "--json"), ("stats", "--days", "100000")):
        code, said, _ = calls(capsys, tmp_path, *arguments)
        assert code == 0 and "answered" in said
    assert "unreadable" in calls(capsys, tmp_path)[1]
    for action in ("show", "plot"):
        code, _, said = calls(capsys, tmp_path, action, "000000000002")
        assert code == 0 or "holds no log" in said or "holds no sound" in said


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "event": st.sampled_from(
                    ["call", "ended", "turn_timed", "caller_said", "bot_said", "engine_used"]
                )
            },
            optional=dict.fromkeys(
                (
                    "audio_ms",
                    "at",
                    "onset_at",
                    "speech_end_at",
                    "first_frame_at",
                    "text",
                    "call_cost_usd",
                    "line",
                ),
                st.none()
                | st.booleans()
                | st.floats()
                | st.text(max_size=3)
                | st.lists(st.integers(), max_size=1),
            ),
        ),
        max_size=6,
    )
)
def test_no_log_is_too_odd_to_tell(events: list[dict[str, object]]) -> None:
    call = summary("serve_20261101-120002_000000000002", events)
    assert (call is None) == (not events)
    if call is not None:
        assert story(call, events)[-1].startswith("Ended")


def wav(channels: int, width: int, frames: bytes) -> bytes:
    made = io.BytesIO()
    with wave.open(made, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(width)
        sound.setframerate(8000)
        sound.writeframes(frames)
    return made.getvalue()


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "no sound"),
        (b"garbage" * 100, "no sound"),
        (b"RIFF\x10\0\0\0WAVEfmt \x03\0\0\0abc", "no sound"),
        (wav(1, 2, bytes(1000)), "none of ours: 1 channels"),
        (wav(2, 1, bytes(1000)), "none of ours: 2 channels of 8 bits"),
        (wav(2, 2, bytes(1000))[:-3], ""),
        (wav(2, 2, b""), ""),
        (wav(2, 2, bytes(1000))[:44], ""),
    ],
)
def test_odd_sound_is_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, wanted: str
) -> None:
    (leave_call(tmp_path, 1) / "full_call.wav").write_bytes(content)
    code, _, said = calls(capsys, tmp_path, "plot", "000000000001")
    assert (code, said.count("\n")) == ((2, 1) if wanted else (0, 0)) and wanted in said


@pytest.mark.parametrize("days", ["nan", "inf", "-1", "0", "much"])
def test_days_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], days: str) -> None:
    with pytest.raises(SystemExit) as ended:
        calls(capsys, tmp_path, "stats", "--days", days)
    assert ended.value.code == 2
    assert f"argument --days: '{days}' must be a number of days above 0" in capsys.readouterr().err


def test_more_days_than_the_calendar_has_are_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_call(tmp_path, 1)
    assert "1: 1 answered" in calls(capsys, tmp_path, "stats", "--days", "1e12")[1]


@pytest.mark.parametrize("arguments", [("list", "--json", "--limit", "2000"), ("list",), ("stats",)])
def test_whoever_reads_may_have_seen_enough(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    for number in range(1, 9):
        leave_call(tmp_path, number)
    command = [sys.executable, "-m", "ari_app", "calls", "--recordings-dir", str(tmp_path), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_old_calls_are_not_even_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The date stands in the folder's name, as the local time of whoever wrote it."""
    leave_call(tmp_path, 1)
    old = tmp_path / "serve_20200101-120000_000000000002"
    old.mkdir()
    os.mkfifo(old / "events.jsonl")  # who opens it waits for ever
    days = str((datetime.now(UTC) - datetime(2026, 10, 1, tzinfo=UTC)).days)
    command = [
        sys.executable,
        "-m",
        "ari_app",
        "calls",
        "--recordings-dir",
        str(tmp_path),
        "stats",
        "--days",
        days,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0 and "1: 1 answered" in done.stdout


def test_sealed_calls_are_counted_as_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(1, 4):
        leave_call(tmp_path, number, sealed=True)
    said = calls(capsys, tmp_path, "stats", "--days", "100000")[1]
    assert said == "3 calls are left out, being sealed: open with `calls unseal`.\n"
    leave_call(tmp_path, 4)
    said = calls(capsys, tmp_path, "stats", "--days", "100000")[1]
    assert "1: 1 answered" in said and "3 calls are left out" in said


def test_calls_without_a_conversation_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_call(tmp_path, 1)
    recorder = Recorder(
        tmp_path / "dial_20261101-120002_000000000002",
        settings=RecorderSettings(),
        started_at=0,
        about={"direction": "outbound", "to": "+4912345"},
    )
    recorder.note("ended", outcome="busy", reason="busy")
    recorder.close()
    row = calls(capsys, tmp_path)[1].splitlines()[1]
    assert "busy" in row and "+4912345" in row
    said = calls(capsys, tmp_path, "stats", "--days", "100000")[1]
    assert "2: 1 busy, 1 answered" in said and "0:10 p50" in said, "its length says nothing of calls"


def unsealed(
    capsys: pytest.CaptureFixture[str], root: Path, identity: object = IDENTITY
) -> tuple[int, str, str]:
    (root / "key.txt").write_text(str(identity))
    return calls(capsys, root, "unseal", "000000000001", "--identity", "key.txt", "--to", "opened")


def test_the_wrong_key_does_not_stand_in_the_right_one_s_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = leave_call(tmp_path, 1, sealed=True)
    code, _, said = unsealed(capsys, tmp_path, pyrage.x25519.Identity.generate())
    assert code == 2 and "another key" in said and list((tmp_path / "opened").iterdir()) == []
    code, said, _ = unsealed(capsys, tmp_path)
    assert (code, said) == (0, f"opened/{folder.name}\n")
    assert stat.S_IMODE((tmp_path / "opened" / folder.name).stat().st_mode) == 0o700
    code, _, said = unsealed(capsys, tmp_path)
    assert code == 2 and "there already" in said


def test_a_sealed_recording_that_somebody_cut_is_not_opened_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = leave_call(tmp_path, 1, sealed=True)
    sound = folder / "full_call.wav.age"
    first, second, *rest = messages(sound.read_bytes())
    assert len(rest) >= 1
    sound.write_bytes(b"".join([first, *rest]))
    code, _, said = unsealed(capsys, tmp_path)
    opened = tmp_path / "opened" / folder.name
    assert code == 2 and "full_call.wav was tampered with: its piece 2 is missing" in said
    assert (opened / "events.jsonl").exists() and not (opened / "full_call.wav").exists()


def test_a_sealed_recording_of_a_killed_process_is_opened_and_its_missing_end_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = leave_call(tmp_path, 1, sealed=True)
    sound = folder / "full_call.wav.age"
    sound.write_bytes(b"".join(messages(sound.read_bytes())[:-1]) + b"-----BEGIN AGE")
    code, said, _ = unsealed(capsys, tmp_path)
    assert code == 0 and said.startswith("full_call.wav has no end") and said.count("\n") == 2
    with wave.open(str(tmp_path / "opened" / folder.name / "full_call.wav")) as opened:
        assert opened.getnframes() == 500 * 160


def test_percentiles_are_values_that_occurred() -> None:
    assert [percentile([1, 2, 3, 4], share) for share in (1, 50, 51, 95, 100)] == [1, 2, 3, 4, 4]


def test_nothing_that_was_said_steers_the_terminal_or_the_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack = "$5 or $6\x1b]0;owned\x07\n\x9b2J\u202e<script>\ud800"
    recorder = Recorder(
        tmp_path / "serve_20261101-120000_00000000000a",
        settings=RecorderSettings(),
        started_at=100.0,
        about={"call": "00000000000a", "direction": "inbound", "from": attack, "to": attack},
    )
    for _ in range(50):
        recorder.push_caller(LOUD, 100.0)
        recorder.push_bot(LOUD, 100.0)
    recorder.push_fact(ports.CallerSpeechStarted(100.1, 100.0))
    recorder.push_fact(ports.CallerSaid(1, attack, "en", LOUD))
    recorder.push_fact(ports.BotSpeechStarted(1, 100.2))
    recorder.push_fact(ports.BotSaid(1, attack, attack, False, LOUD))
    recorder.push_fact(ports.CallerNotUnderstood(2, attack))
    recorder.push_fact(ports.EngineFailed(2, "chat", attack, False, "timeout"))
    recorder.note("ended", outcome="failed" + attack, by="far", reason=attack, line={"mos": 4.2})
    recorder.close()
    for action in (["list"], ["show", "00000000000a"], ["stats", "--days", "9999"]):
        code, said, complaint = calls(capsys, tmp_path, *action)
        assert code == 0 and not complaint
        assert all(line.isprintable() for line in said.split("\n")), action
    assert calls(capsys, tmp_path, "plot", "00000000000a", "--output", "a.svg")[0] == 0
    ElementTree.parse("a.svg")
    code, said, _ = calls(capsys, tmp_path, "list", "--json")
    assert json.loads(said)[0]["number"] == attack
