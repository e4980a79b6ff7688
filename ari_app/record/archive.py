"""Past calls, read from what they left. Shell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ari_app.record.files import SEALED_SUFFIX

EVENTS = "events.jsonl"
AUDIO = "full_call.wav"
FOLDER_NAME = re.compile(r"[a-z]+_(\d{8}-\d{6})_([0-9a-f]+)")
"""Of a call's folder: command, begin, call id."""

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PastCall:
    """One call as its event log tells it."""

    name: str
    """Of its folder."""
    call: str
    direction: str
    number: str
    """The caller's, or the number that was called."""
    started: datetime
    seconds: float
    outcome: str
    """Empty: the process ended before the call."""
    reason: str
    gaps_ms: tuple[float, ...]
    """From the caller's last word to the bot's first, by turn."""
    turns: int
    barge_ins: int
    failures: int
    cost_usd: float | None
    cost_is_partial: bool
    """Something had no known cost: the call cost more."""
    mos: float | None
    sealed: bool = False
    """Only the owner of the private key can read it; the rest is unknown."""


class Archive:
    """The folder of recordings.

    Args:
        root: as RECORDINGS_DIR.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        """Folders of calls, newest first; those that go on included."""
        if not self._root.is_dir():
            return []
        found = [path.name for path in self._root.iterdir() if FOLDER_NAME.fullmatch(path.name)]
        return sorted(found, key=lambda name: name.split("_", 1)[1], reverse=True)

    def find(self, wanted: str) -> Path | None:
        """The folder of that name, of that call id, or of the only id that begins so."""
        hits = [name for name in self.names() if name == wanted or name.rsplit("_", 1)[1].startswith(wanted)]
        return self._root / hits[0] if wanted and len(hits) == 1 else None

    def calls(self, *, limit: int | None = None) -> Iterator[PastCall]:
        """Newest first; folders that hold no readable log are left out."""
        for name in self.names()[:limit]:
            folder = self._root / name
            if (folder / (EVENTS + SEALED_SUFFIX)).exists():
                yield _sealed(name)
            elif (call := summary(name, read_events(folder))) is not None:
                yield call


def read_events(folder: Path) -> list[Event]:
    """The event log of a call; a last line that a kill cut short is left out."""
    try:
        lines = (folder / EVENTS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            events.append(event)
    return events


def summary(name: str, events: Sequence[Event]) -> PastCall | None:
    """What a log says of its call; None when it does not begin as one."""
    matched = FOLDER_NAME.fullmatch(name)
    if matched is None or not events:
        return None
    about = events[0] if events[0]["event"] == "call" else {}
    ended = next((event for event in reversed(events) if event["event"] == "ended"), {})
    direction = str(about.get("direction", ""))
    costs = [e["call_cost_usd"] for e in events if e["event"] == "engine_used"]
    partial = any(e["cost_usd"] is None for e in events if e["event"] == "engine_used")
    return PastCall(
        name=name,
        call=matched[2],
        direction=direction,
        number=str(about.get("from" if direction == "inbound" else "to", "")),
        started=_started(matched[1], about),
        seconds=max((event.get("audio_ms", 0) for event in events), default=0) / 1000,
        outcome=str(ended.get("outcome", "")),
        reason=str(ended.get("reason", "")),
        gaps_ms=tuple(gaps_ms(events)),
        turns=sum(event["event"] == "caller_said" for event in events),
        barge_ins=sum(event["event"] == "barge_in" for event in events),
        failures=sum(event["event"] == "engine_failed" for event in events),
        cost_usd=next((cost for cost in reversed(costs) if cost is not None), None),
        cost_is_partial=partial,
        mos=(ended.get("line") or {}).get("mos"),
    )


def gaps_ms(events: Sequence[Event]) -> list[float]:
    """How long callers waited, by turn."""
    return [
        round((event["first_frame_at"] - event["speech_end_at"]) * 1000)
        for event in events
        if event["event"] == "turn_timed" and event.get("first_frame_at") is not None
    ]


def _sealed(name: str) -> PastCall:
    known = summary(name, [{"event": "call"}])
    assert known is not None
    return replace(known, sealed=True)


def _started(stamp: str, about: Event) -> datetime:
    try:
        return datetime.fromisoformat(str(about["started"])).astimezone()
    except (KeyError, ValueError):
        return datetime.strptime(stamp, "%Y%m%d-%H%M%S").astimezone()
