"""Words of callers, engines and the telephone network, made safe to show, to log and to keep. Core.

Names come from anybody who can call, and what an engine writes follows what a caller said: neither may begin a line of
a log, steer a terminal, or hold what can't be written as UTF-8.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters of ISO 6429, ends of lines, turns of the writing direction (CVE-2021-42574), halves of UTF-16."""


def clean(text: str) -> str:
    """As long as before; a space in place of each character that is not of a text."""
    return _UNSAFE.sub(" ", text)


def one_line(text: str, max_chars: int) -> str:
    """The words with a single space between them, and of bounded length."""
    return " ".join(clean(text[: 4 * max_chars]).split())[:max_chars]


def shown(text: str) -> str:
    """For a terminal: on one line, `?` in place of what would steer it."""
    return _UNSAFE.sub("?", text)


def escaped(text: str) -> str:
    r"""For a log: such characters as `\u001b`, which in a JSON string means the same."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
