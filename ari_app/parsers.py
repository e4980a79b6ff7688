"""From the text of a setting to its value. Core.

Each parser raises ValueError with the end of a sentence, such as "must be yes or no".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

Parser = Callable[[str], Any]
"""Turns the text of a setting into its value; raises ValueError saying what it must be."""


def text(value: str) -> str:
    """Any text."""
    return value


def number(low: float, high: float, unit: str, *, whole: bool = True) -> Parser:
    """A number within limits; `unit` is for the complaint."""

    def parse(value: str) -> float:
        try:
            parsed = int(value) if whole else float(value)
        except ValueError:
            parsed = None
        if parsed is None or not low <= parsed <= high:
            kind = "a whole number" if whole else "a number"
            raise ValueError(f"must be {kind} from {low:g} to {high:g} ({unit})")
        return parsed

    return parse


def switch(value: str) -> bool:
    """Yes or no."""
    word = value.strip().lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"", "0", "false", "no", "off"}:
        return False
    raise ValueError("must be yes or no")


def one_of(*choices: str) -> Parser:
    """One of some words."""

    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return parse


def url(value: str) -> str:
    """An HTTP URL without credentials, and without a slash at its end."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.password:
        raise ValueError("must be an http:// or https:// URL without user name and password")
    return value.rstrip("/")


def optional_url(value: str) -> str:
    """A URL, or nothing."""
    return url(value) if value else ""


def name(value: str) -> str:
    """A name that Asterisk and file systems take."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
        raise ValueError("must be 1 to 64 letters, digits, '_', '.' or '-'")
    return value


def port_range(value: str) -> tuple[int, int] | None:
    """Two ports, or nothing."""
    if not value:
        return None
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", value)
    if not match:
        raise ValueError("must look like 40000-40999")
    low, high = int(match[1]), int(match[2])
    if not 1024 <= low <= high <= 65535:
        raise ValueError("must be two ports from 1024 to 65535, the lower one first")
    return low, high


def dial_endpoint(value: str) -> str:
    """An Asterisk dial string with a place for the number."""
    if value.count("{number}") != 1 or not re.fullmatch(r"[A-Za-z0-9]+/[^\s,;&|]+", value):
        raise ValueError(
            "must be an Asterisk dial string with {number} in it, such as PJSIP/{number}@outbound"
        )
    return value
