"""From the text of a setting to its value. Core.

Each parser raises ValueError with the end of a sentence, such as "must be yes or no".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dotenv.parser import parse_stream

from ari_app.errors import ConfigError
from ari_app.guard import is_country_code

Parser = Callable[[str], Any]
"""Turns the text of a setting into its value; raises ValueError saying what it must be."""
OFFLINE = "offline"
"""In place of a URL: the embedded offline backend."""


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


def number_or_off(low: int, high: int, unit: str) -> Parser:
    """A whole number within limits, or 0."""

    def parse(value: str) -> int:
        try:
            return 0 if value == "0" else int(number(low, high, unit)(value))
        except ValueError as fault:
            raise ValueError(f"{fault}, or 0") from None

    return parse


def word_or_number(*words: str, low: float, high: float) -> Parser:
    """One of some words, or a number within limits."""

    def parse(value: str) -> str | float:
        if value in words:
            return value
        try:
            return float(number(low, high, "share", whole=False)(value))
        except ValueError as fault:
            raise ValueError(f"{fault}, or one of {', '.join(words)}") from None

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
    try:
        parts.port  # noqa: B018 - raises for one that is none
    except ValueError:
        raise ValueError("must have a port from 1 to 65535, or none") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.password:
        raise ValueError("must be an http:// or https:// URL without user name and password")
    return value.rstrip("/")


def optional_url(value: str) -> str:
    """A URL, or nothing."""
    return url(value) if value else ""


def url_or_offline(value: str) -> str:
    """A URL, `offline`, or nothing."""
    return value if value in ("", OFFLINE) else url(value)


def name(value: str) -> str:
    """A name that Asterisk and file systems take."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
        raise ValueError("must be 1 to 64 letters, digits, '_', '.' or '-'")
    return value


def address(value: str) -> str:
    """An IP address of one interface."""
    try:
        parsed = ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("must be an IP address") from None
    if parsed.is_unspecified or parsed.is_multicast:
        raise ValueError("must be the address of one interface, since Asterisk sends to it")
    return value


def address_or_auto(value: str) -> str:
    """An IP address of one interface, or the word auto."""
    try:
        return value if value == "auto" else address(value)
    except ValueError as fault:
        raise ValueError(f"{fault}, or auto") from None


def any_address(value: str) -> str:
    """An IP address to listen on, also that of all interfaces."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("must be an IP address") from None
    return value


def country_code(value: str) -> str:
    """A country's code, or nothing."""
    if value and not is_country_code(value):
        raise ValueError("must be a country's code without +, such as 44")
    return value


def keys(value: str) -> str:
    """Keys of a telephone, or none."""
    if not re.fullmatch(r"[0-9*#A-D]*", value):
        raise ValueError("must be keys of a telephone: 0 to 9, * and #")
    return value


def dial_entries(value: str) -> tuple[str, ...]:
    """Numbers and beginnings of numbers with commas between them, or nothing."""
    entries = tuple(entry.strip() for entry in value.split(",") if entry.strip())
    for entry in entries:
        if not re.fullmatch(r"\+[0-9]{1,15}|[0-9*#]{1,32}", entry):
            raise ValueError(f"must be beginnings of numbers such as +44,+4930, which '{entry}' is not")
    return entries


def languages(value: str) -> tuple[str, ...]:
    """ISO 639-1 codes by commas, or nothing."""
    codes = tuple(dict.fromkeys(code.strip() for code in value.split(","))) if value else ()
    if not all(re.fullmatch(r"[a-z]{2,3}", code) for code in codes):
        raise ValueError("must be language codes of two letters, such as en or en,es")
    return codes


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
        raise ValueError("must be an Asterisk dial string with {number} in it, such as PJSIP/{number}@trunk")
    return value


def parse_dotenv(path: Path, text: str) -> dict[str, str | None]:
    """Parse a `.env` file strictly: a line that is not NAME=value is a fault, not a guess.

    Raises:
        ConfigError: naming the file and the line.
    """
    values: dict[str, str | None] = {}
    for binding in parse_stream(StringIO(text)):
        line = binding.original.line + binding.original.string[
            : -len(binding.original.string.lstrip())
        ].count("\n")
        if binding.error or (binding.key is not None and binding.value is None):
            raise ConfigError(f"{path.name} line {line} is not of the form NAME=value: correct or delete it.")
        if binding.key is not None:
            values[binding.key] = binding.value
    return values


def token(text: str) -> str:
    """A secret that nobody guesses, of characters that fit into an HTTP header."""
    if text and (len(text) < 16 or not re.fullmatch(r"[!-~]+", text)):
        raise ValueError("must have 16 characters or more, without spaces")
    return text


def failure_policy(value: str) -> str:
    """`dialplan`, `hangup`, or an extension."""
    if value not in ("dialplan", "hangup") and not re.fullmatch(r"[0-9*#]{1,32}", value, re.ASCII):
        raise ValueError("must be dialplan, hangup, or an extension of digits, * and #")
    return value


def extension(text: str) -> str:
    """Digits, * and #."""
    if not re.fullmatch(r"[0-9*#]{1,32}", text, re.ASCII):
        raise ValueError("must be an extension: digits, * and #")
    return text


def host_names(text: str) -> tuple[str, ...]:
    """Names of hosts with commas between them, or nothing."""
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    for name in names:
        if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", name):
            raise ValueError(f"must be names of hosts such as bot.example.com, which '{name}' is not")
    return names
