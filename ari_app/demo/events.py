"""Follows a call's `events.jsonl` while it is written, and words its events for a reader. Shell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from ari_app.dialog.waterfall import waterfall

POLL_S = 0.1

Event = dict[str, Any]


async def wait_for_recording(root: Path, known: set[Path], timeout_s: float) -> Path:
    """The directory of the next recorded call under `root` that is not in `known`.

    Raises:
        TimeoutError: no call was recorded in time.
    """
    async with asyncio.timeout(timeout_s):
        while True:
            for directory in sorted(root.glob("*/events.jsonl")):
                if directory.parent not in known:
                    return directory.parent
            await asyncio.sleep(POLL_S)


async def follow(path: Path) -> AsyncIterator[Event]:
    """Yield the events of a call as they are written, until its `ended` event."""
    with path.open(encoding="utf-8") as log:
        line = ""
        while True:
            line += log.readline()
            if not line.endswith("\n"):  # a line may be seen half written
                await asyncio.sleep(POLL_S)
                continue
            event: Event = json.loads(line)
            line = ""
            yield event
            if event["event"] == "ended":
                return


def delays_ms(event: Event) -> dict[str, int]:
    """The waterfall of a `turn_timed` event in ms per stage; `total`: caller's last word to bot's first."""
    fall = waterfall(event)
    delays = {stage.name: stage.ms for stage in fall.stages}
    return delays if fall.wait_ms is None else {**delays, "total": fall.wait_ms}


def describe(event: Event) -> str | None:
    """One line for a reader of the live conversation; None for events that are not worth one."""
    clock = f"{event['audio_ms'] / 1000:7.1f} s"
    match event["event"]:
        case "caller_said":
            return f"{clock}  heard    {event['text']}"
        case "caller_not_understood":
            return f"{clock}  heard    ({event['reason']})"
        case "bot_said" if event["interrupted"]:
            return f"{clock}  bot      {event['heard']} [interrupted]"
        case "bot_said":
            return f"{clock}  bot      {event['text']}"
        case "turn_timed":
            delays = delays_ms(event)
            total = delays.pop("total", None)
            stages = " · ".join(f"{name} {value}" for name, value in delays.items())
            return f"{'':9}  delays   {stages} = {total} ms"
        case "barge_in":
            return f"{clock}  barge-in the caller speaks over the bot"
        case "engine_failed":
            return f"{clock}  failure  {event['stage']}: {event['message']}"
        case "ended":
            return f"{clock}  ended    {event['reason']}"
    return None
