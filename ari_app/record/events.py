"""Facts as JSON: the lines of `events.jsonl`, and what a console is sent. Core."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from ari_app.dialog.ports import Fact


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
