"""Facts as JSON: the lines of `events.jsonl`, and what a console is sent. Core."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import Any

from ari_app.dialog.ports import Fact
from ari_app.dialog.waterfall import Stage, waterfall

Event = dict[str, Any]


def name_of(fact: Fact) -> str:
    """`caller_said` for a `CallerSaid`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(fact).__name__).lower()


def values_of(fact: Fact, started_at: float) -> dict[str, Any]:
    """What it tells, without audio; times in seconds since `started_at` (s, loop clock)."""
    values = {}
    for field in fields(fact):
        value = getattr(fact, field.name)
        if field.name == "at" or field.name.endswith("_at"):
            value = None if value is None else round(value - started_at, 3)
        if field.name != "pcm":
            values[field.name] = whole(value) if isinstance(value, str) else value
    return values


def whole(text: str) -> str:
    """A character beyond 16 bits may come in two halves, in two pieces of JSON: they are joined."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def number_of(event: Event, name: str) -> float | None:
    """A number of the event, if it is one."""
    value = event.get(name)
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if known else None


def numbers_of(event: Event) -> dict[str, float | None]:
    """All its members, those that are no numbers as None."""
    return {name: number_of(event, name) for name in event}


def text_of(event: Event, name: str) -> str:
    """A text of the event; "" without one."""
    value = event.get(name)
    return whole(value) if isinstance(value, str) else ""


def with_stages(event: Event) -> Event:
    """For who shows it: a `turn_timed` also tells what the answer waited for."""
    if event["event"] != "turn_timed":
        return event
    fall = waterfall(numbers_of(event))
    return {
        **event,
        "wait_ms": fall.wait_ms,
        "stages": [_span(stage) for stage in fall.stages],
        "ahead": [_span(stage) for stage in fall.ahead],
    }


def _span(stage: Stage) -> dict[str, Any]:
    return {"name": stage.name, "begin_ms": stage.begin_ms, "end_ms": stage.end_ms}
