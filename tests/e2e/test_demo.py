"""`demo` as a newcomer runs it, in both modes at the same time on one machine."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from ari_app.demo import script
from ari_app.demo.asterisk_prefix import Prefix
from tests.e2e.applications import finish, start
from tests.e2e.checks import word_error_rate
from tests.e2e.test_conversation import ANSWER_WORDS

DEMO_TIMEOUT_S = 240
"""Two demos share the machine with whatever else runs there."""


async def test_two_demos_at_once_report_what_was_said(
    asterisk_prefix: Prefix, baresip_prefix: Prefix, tmp_path: Path
) -> None:
    """The prefixes are asked for so that they have been fetched."""
    reports = {"pipeline": tmp_path / "pipeline.json", "realtime": tmp_path / "realtime.json"}
    demos = [
        await start(
            {"XDG_STATE_HOME": str(tmp_path / "state")},
            *(tmp_path, "demo", "--mode", mode, "--json", str(report)),
        )
        for mode, report in reports.items()
    ]
    try:
        said = await asyncio.gather(*(finish(demo, within_s=DEMO_TIMEOUT_S) for demo in demos))
    finally:
        for demo in demos:
            if demo.returncode is None:
                demo.terminate()
                await demo.wait()
    for (code, out, err), report in zip(said, reports.values(), strict=True):
        assert code == 0, out + err
        check_report(report)
    assert len({json.loads(report.read_text("utf-8"))["recording"] for report in reports.values()}) == 2


def check_report(path: Path) -> None:
    report = json.loads(path.read_text("utf-8"))
    assert report["problems"] == []
    assert report["greeting"] == script.GREETING
    assert report["leftovers"] == {"channels": 0, "bridges": 0, "udp_sockets": 0}
    assert [turn["caller_said"] for turn in report["turns"]] == list(script.CALLER_LINES)
    for turn, answer in zip(report["turns"], ANSWER_WORDS, strict=True):
        assert word_error_rate(turn["caller_said"], turn["heard"]) <= 0.35
        assert answer in turn["bot"].lower()
        assert turn["delays_ms"]
        assert all(delay >= 0 for delay in turn["delays_ms"].values())
    sounds = {f"{kind}_{turn:03d}.wav" for turn in range(1, 5) for kind in ("segment", "response")}
    assert sounds | {"full_call.wav", "full_transcript.txt", "events.jsonl"} <= set(report["files"])
    assert {p.name for p in (path.parent / report["recording"]).iterdir()} == set(report["files"])
