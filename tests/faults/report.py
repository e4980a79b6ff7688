"""The matrix on paper: one JSON with every cell, one Markdown with a table per group."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.report import machine
from bench.stats import summarize
from tests.faults.course import MOMENTS, Note

METHOD = """\
Each cell is a call of its own through a private Asterisk 22 to a fresh `python -m ari_app serve`, with an engine that
fails as the cell says from that moment on, in the pipeline one stage by turns (ringing, thinking: speech-to-text;
greeting, speaking: chat; listening, hanging up: text-to-speech; “refused”: all). The caller is a raw SIP user agent
that speaks real speech and hears by the clock; each sentence of the bot is a tone of its own, so that it is known
which one was heard (`heard` in the JSON, and in the table the first after the fault). “Wait” is the time from the
caller's last word to the next sound, less the silence window (500 ms). On bad lines the engine knows the caller's
sentence by its loudness from moment to moment, and takes anything else for nothing. The witness is another, silent
caller of the same application; gaps are between packets that it got.

A cell passes when nobody waited longer than 3 s, before an answer or in the middle of one; the call ended as it must
after that fault, and was not given up without a word; the witness waited for no packet longer than 250 ms (3.25 s
where the application was paused), heard nothing that was not theirs, and was not hung up on; the log has no fault of
ours; and afterwards, both callers gone, there is no more than before the first call: channels, bridges, UDP sockets,
connections to the Realtime server, tasks, temporary files, recordings that go on. Where Asterisk, the application and
their connection were left alone, each call has to clean up itself; the sweep may not help.
"""


def write(notes: Sequence[Note], folder: Path) -> None:
    """`faults.json` and `faults.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, note in enumerate(notes):
        if note.log:
            (folder / f"failed-{number}.log").write_text(note.log, "utf-8")
            note.log = ""
    data = {
        "when": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "cells": [asdict(note) for note in notes],
    }
    (folder / "faults.json").write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    (folder / "faults.md").write_text(as_markdown(notes), "utf-8")


def as_markdown(notes: Sequence[Note]) -> str:
    """For people."""
    passed = sum(note.ok for note in notes)
    lines = ["# Fault matrix", "", METHOD, f"{passed} of {len(notes)} cells passed.", ""]
    waits = summarize([wait / 1000 for note in notes for wait in note.waits_ms])
    gaps = summarize([note.witness_gap_p99_ms for note in notes if note.witness_gap_p99_ms])
    if waits:
        lines.append(f"Waits of all callers, s (p50 · p95 · p99 · max): {waits}")
    if gaps:
        lines.append(f"p99 of each witness's packet gaps, ms (p50 · p95 · p99 · max over all cells): {gaps}")
    for group in dict.fromkeys(note.group for note in notes):
        lines += ["", f"## {group}", "", *_table([note for note in notes if note.group == group])]
    failed = [note for note in notes if not note.ok]
    if failed:
        lines += ["", "## Failed", ""]
        lines += [
            f"- {note.group}: {note.fault}, {note.moment}, {note.mode}: {'; '.join(note.problems)}"
            for note in failed
        ]
    return "\n".join(lines) + "\n"


def _table(notes: Sequence[Note]) -> list[str]:
    known = {note.moment for note in notes}
    moments = [moment for moment in (*MOMENTS, "throughout") if moment in known]
    rows = [f"| fault | mode | {' | '.join(moments)} |", "|---" * (len(moments) + 2) + "|"]
    order = sorted({(note.mode, note.fault) for note in notes})
    for mode, fault in order:
        cells = {note.moment: note for note in notes if (note.mode, note.fault) == (mode, fault)}
        row = [_cell(cells[moment]) if moment in cells else "" for moment in moments]
        rows.append(f"| {fault} | {mode} | {' | '.join(row)} |")
    return rows


def _cell(note: Note) -> str:
    wait = f", {max(note.waits_ms) / 1000:.1f} s" if note.waits_ms else ""
    first = f", {note.heard_first}" if note.heard_first else ""
    return f"{'' if note.ok else '**FAILED** '}{note.ending}{wait}{first}"
