"""`python -m ari_app calls` over folders as the recorder leaves them."""

from __future__ import annotations

import json
import wave
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyrage
import pytest

from ari_app import cli
from ari_app.dialog import ports
from ari_app.record.archive import read_events
from ari_app.record.files import seal_for
from ari_app.record.recorder import Recorder, RecorderSettings
from ari_app.record.report import percentile

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
        "1200 ms: understood 400, first word 100, first sentence 100, first speech 100, until heard 500",
        "waited 480 ms for “noise”",
        "failed: chat: no answer",
        "MOS 4.2",
        "Ended: answered; hung up",
    ):
        assert wanted in said
    lines = said.splitlines()
    bar = next(line for line in lines if "1200 ms" in line).split()[0]
    assert len(bar) == pytest.approx(40, abs=2) and bar.count("=") == pytest.approx(13, abs=1)


def test_statistics_over_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(1, 5):
        leave_call(tmp_path, number, gap_s=number)
    code, said, _ = calls(capsys, tmp_path, "stats", "--days", "100000")
    assert code == 0
    assert "4: 4 answered" in said and "2000 ms p50, 4000 ms p95, 4000 ms p99" in said
    assert "$0.08, $0.0200 a call" in said and "4 interruptions" in said
    assert "No call of that time" in calls(capsys, tmp_path, "stats", "--days", "0.00001")[1]


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


def test_percentiles_are_values_that_occurred() -> None:
    assert [percentile([1, 2, 3, 4], share) for share in (1, 50, 51, 95, 100)] == [1, 2, 3, 4, 4]
