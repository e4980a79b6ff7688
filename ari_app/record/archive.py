"""Past calls, read from what they left: whatever a file holds costs its own call at most. Shell."""

from __future__ import annotations

import json
import logging
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ari_app.dialog.waterfall import waterfall
from ari_app.record.events import Event, number_of, numbers_of, text_of
from ari_app.record.folder import EVENTS, goes_on
from ari_app.record.seal import SEALED_SUFFIX

logger = logging.getLogger(__name__)

FOLDER_NAME = re.compile(r"[a-z]+_(\d{8}-\d{6})_([0-9a-f]+)")
"""Of a call's folder: command, begin, call id."""
CLOCKS_DIFFER = timedelta(days=1)
"""A folder's name has the local time of the machine that wrote it."""


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
    """Empty: the call goes on, or the process ended before it."""
    reason: str
    gaps_ms: tuple[int, ...]
    """From the caller's last word to the bot's first, by turn."""
    wait_ms: float | None
    """Their median."""
    turns: int
    barge_ins: int
    failures: int
    cost_usd: float | None
    cost_is_partial: bool
    """Something had no known cost: the call cost more."""
    mos: float | None
    unheard: bool = False
    """Nothing came from the caller, not one packet."""
    sealed: bool = False
    """Only the owner of the private key can read it; the rest is unknown."""
    goes_on: bool = False
    """It is not over."""
    unreadable: bool = False
    """Its log is missing, or is none of ours; the rest is unknown."""


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

    def calls(self, *, limit: int | None = None, since: datetime | None = None) -> Iterator[PastCall]:
        """Newest first; what began before `since` is not even read."""
        for name in self.names()[:limit]:
            if since is not None and _stamp(name) < since - CLOCKS_DIFFER:
                continue
            folder = self._root / name
            try:
                call = _past_call(folder)
            except Exception as error:  # one odd folder must not hide all the others
                logger.debug("%s is not readable", folder, exc_info=error)
                call = replace(_unknown(name), unreadable=True)
            if (since is None or call.started >= since) and folder.is_dir():  # it may have been tidied away
                yield call


def read_events(folder: Path) -> list[Event]:
    """The event log of a call; a last line that a kill cut short is left out."""
    try:
        lines = (folder / EVENTS).read_bytes().split(b"\n")  # what a caller said may hold any other line end
    except OSError:
        return []
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            events.append(event)
    return events


def _past_call(folder: Path) -> PastCall:
    if (folder / (EVENTS + SEALED_SUFFIX)).exists():
        return replace(_unknown(folder.name), sealed=True, goes_on=goes_on(folder))
    lasting = goes_on(folder)  # before its log is read: it may end meanwhile, and then the log says so
    call = summary(folder.name, read_events(folder))
    if call is None:
        return replace(_unknown(folder.name), goes_on=lasting, unreadable=not lasting)
    return replace(call, goes_on=lasting and not call.outcome)


def summary(name: str, events: Sequence[Event]) -> PastCall | None:
    """What a log says of its call; None when it says nothing."""
    if not FOLDER_NAME.fullmatch(name) or not events:
        return None
    about = events[0] if events[0]["event"] == "call" else {}
    ended = next((event for event in reversed(events) if event["event"] == "ended"), {})
    direction = text_of(about, "direction")
    used = [event for event in events if event["event"] == "engine_used"]
    costs = [number_of(event, "call_cost_usd") for event in used]
    line = ended.get("line")
    unknown, gaps = _unknown(name), gaps_ms(events)
    return replace(
        unknown,
        direction=direction,
        number=text_of(about, "from" if direction == "inbound" else "to"),
        started=_started(about) or unknown.started,
        seconds=max((number_of(event, "audio_ms") or 0 for event in events), default=0) / 1000,
        outcome=text_of(ended, "outcome"),
        reason=text_of(ended, "reason"),
        gaps_ms=tuple(gaps),
        wait_ms=statistics.median(gaps) if gaps else None,
        turns=sum(event["event"] == "caller_said" for event in events),
        barge_ins=sum(event["event"] == "barge_in" for event in events),
        failures=sum(event["event"] == "engine_failed" for event in events),
        cost_usd=next((cost for cost in reversed(costs) if cost is not None), None),
        cost_is_partial=any(number_of(event, "cost_usd") is None for event in used),
        mos=number_of(line, "mos") if isinstance(line, dict) else None,
        unheard=ended.get("unheard") is True,
    )


def gaps_ms(events: Sequence[Event]) -> list[int]:
    """How long callers waited, by turn."""
    waits = [waterfall(numbers_of(event)).wait_ms for event in events if event["event"] == "turn_timed"]
    return [wait_ms for wait_ms in waits if wait_ms is not None]


def _unknown(name: str) -> PastCall:
    """What the name of the folder says."""
    call = name.rpartition("_")[2]
    return PastCall(name, call, "", "", _stamp(name), 0.0, "", "", (), None, 0, 0, 0, None, False, None)


def _stamp(name: str) -> datetime:
    matched = FOLDER_NAME.fullmatch(name)
    try:
        return datetime.strptime(matched[1] if matched else "", "%Y%m%d-%H%M%S").astimezone()
    except (ValueError, OverflowError):  # such a time there never was
        return datetime.fromtimestamp(0, UTC)


def _started(about: Event) -> datetime | None:
    try:
        return datetime.fromisoformat(text_of(about, "started")).astimezone()
    except (ValueError, OverflowError):
        return None
