"""The benchmark's own arithmetic: what is loud, what was answered when, percentiles, floors, reports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ari_app.audio.codec import pcm16_to_ulaw
from ari_app.audio.format import FRAME_BYTES
from ari_app.audio.resample import resample
from bench import report
from bench.engine import PROFILES, TONES_HZ, Known, envelope, recognised, tone
from bench.media import first_loud, last_loud, tone_hz
from bench.scenarios import Result, least_gap_ms
from bench.sipp import answers, scenario
from bench.speech import trimmed
from bench.stats import summarize


def ulaw(level: int, count: int = 160) -> bytes:
    return pcm16_to_ulaw(np.full(count, level, "<i2").tobytes())


def test_the_first_and_last_sample_of_the_tone_are_found() -> None:
    packet = ulaw(0, 37) + ulaw(8000, 3) + ulaw(-8000, 20) + ulaw(0, 100)
    assert (first_loud(packet), last_loud(packet)) == (37, 59)


@pytest.mark.parametrize("level", [0, 8, -8, 200, -400])
def test_what_silence_codes_to_is_no_tone(level: int) -> None:
    assert first_loud(ulaw(level)) == last_loud(ulaw(level)) == -1


@pytest.mark.parametrize("hz", TONES_HZ)
def test_two_pieces_of_the_engines_tone_join_without_a_step(hz: int) -> None:
    joined = np.frombuffer(tone(100, hz) + tone(100, hz), "<i2").astype(int)
    assert np.abs(np.diff(joined)).max() <= np.abs(np.diff(joined[: len(joined) // 4])).max()


def test_speech_is_cut_to_where_it_is_loud() -> None:
    loud, quiet = np.full(160, 9000, "<i2").tobytes(), np.full(160, 20, "<i2").tobytes()
    assert len(loud) == FRAME_BYTES
    assert trimmed(quiet * 3 + loud + quiet + loud * 2 + quiet * 5) == loud + quiet + loud * 2
    assert trimmed(quiet * 3) == b""


def test_percentiles_are_samples_that_occurred() -> None:
    summary = summarize([float(n) for n in range(1, 101)])
    assert summary is not None
    assert (summary.count, summary.p50, summary.p95, summary.p99, summary.max) == (100, 50, 95, 99, 100)
    assert summarize([]) is None


@pytest.mark.parametrize(
    ("window_ms", "engine_ms", "least_ms"),
    [(1000, 480, 1000), (500, 480, 720), (1000, 1210, 1450), (240, 480, 720), (200, 480, 680)],
)
def test_the_floor_is_the_longer_of_window_and_engine(
    window_ms: float, engine_ms: float, least_ms: float
) -> None:
    assert least_gap_ms(window_ms, engine_ms) == least_ms


def test_the_engine_needs_two_words_to_know_that_one_is_over() -> None:
    assert PROFILES["fast"].total_ms == 150 + 200 + 10 + 120


def test_answers_are_read_from_sipps_log_in_order_of_the_calls() -> None:
    def line(call: int, at: float, method: str, first: str) -> str:
        return f"2026-01-01\t10:00:00\t{at}\tR\t{call}-99@127.0.0.1\tCSeq:2 {method}\t{first}"

    trace = [
        line(2, 20.5, "INVITE", "SIP/2.0 200 OK"),
        line(1, 10.25, "INVITE", "SIP/2.0 200 OK"),
        line(1, 10.5, "INVITE", "SIP/2.0 200 OK"),  # sent again
        line(1, 30.0, "BYE", "SIP/2.0 200 OK"),
        line(1, 10.0, "INVITE", "SIP/2.0 100 Trying"),
        "garbage",
    ]
    assert answers("\n".join(trace)) == [10.25, 20.5]


def test_sipp_gets_well_formed_xml_with_one_invite_that_authenticates() -> None:
    text = scenario(extension="100", user="caller", password="secret", seconds=30)
    root = ElementTree.fromstring(text)
    sent = [(step.text or "").strip() for step in root.iter("send")]
    invites = [message for message in sent if message.startswith("INVITE sip:100@")]
    assert ["[authentication" in message for message in invites] == [False, True]
    waits = [step for step in root.iter("recv") if step.get("request") == "BYE"]
    assert [step.get("timeout") for step in waits] == ["30000"]


RESULTS = [
    Result("gap", {"engine": "fast", "window_ms": 500}, {"gap_ms": [700.0, 750.0, 800.0]}, {"failed": 0}),
    Result("capacity", {"calls": 25}, {"packet_gap_ms": [20.0] * 9}, {"lost": 1, "cpu_percent": 0.5}),
]
MACHINE = {"processor": "x", "cores": 2, "load_before": 0.1, "kernel": "6", "python": "3.11"}


def test_a_report_holds_every_sample_and_reads_back(tmp_path: Path) -> None:
    data = report.as_data(RESULTS, MACHINE, quick=True)
    written = report.write(data, tmp_path)
    back = json.loads((tmp_path / "report.json").read_text())
    assert back["results"][0]["samples"]["gap_ms"] == [700.0, 750.0, 800.0]
    assert back["results"][0]["summary"]["gap_ms"]["p50"] == 750
    text = (tmp_path / "report.md").read_text()
    assert "| engine fast, window 500 | 3: 750.0 · 800.0 · 800.0 · 800.0 |" in text
    assert "| calls 25 | 9: 20.0 · 20.0 · 20.0 · 20.0 | 1 | 0.5 |" in text
    assert {path.suffix for path in written} >= {".json", ".md"}


def test_a_comparison_shows_the_ratio_of_what_both_measured() -> None:
    old = report.as_data(RESULTS, MACHINE, quick=True)
    faster = [Result("gap", RESULTS[0].parameters, {"gap_ms": [375.0]}), RESULTS[1]]
    lines = report.comparison(old, report.as_data(faster, MACHINE, quick=True)).splitlines()
    assert "| gap engine fast, window 500 | gap_ms | 750.0 | 375.0 | 0.50 |" in lines
    assert len(lines) == 4


def test_a_wrong_file_to_compare_is_one_sentence(tmp_path: Path) -> None:
    wrong = tmp_path / "old.json"
    wrong.write_text("{")
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--compare", str(wrong)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: --compare:") and done.stderr.count("\n") == 1


def test_the_callers_tell_the_tones_apart() -> None:
    heard = [tone_hz(pcm16_to_ulaw(resample(tone(100, hz), 24_000, 8000)[640:960])) for hz in TONES_HZ]
    assert all(abs(found - hz) <= 50 for found, hz in zip(heard, TONES_HZ, strict=True)), heard


def test_the_engine_knows_its_recordings_through_a_telephone() -> None:
    noise = np.random.default_rng(3)

    def syllables(count: int) -> np.ndarray:
        return np.concatenate([noise.normal(0, level, 800) for level in noise.integers(200, 6000, count)])

    first, rest, other = syllables(8), syllables(10), syllables(12)
    whole = np.concatenate((first, np.zeros(4000), rest))
    known = [
        Known(envelope(first), "first"),
        Known(envelope(whole), "whole"),
        Known(envelope(other), "other"),
    ]
    for samples, text in ((first, "first"), (whole, "whole"), (other, "other")):
        padded = np.concatenate((np.zeros(777), samples, np.zeros(2000))) + noise.normal(
            0, 30, len(samples) + 2777
        )
        assert recognised(padded.astype("<i2").tobytes(), known) == text
    assert recognised(noise.normal(0, 300, 1600).astype("<i2").tobytes(), known) is None
