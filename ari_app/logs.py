"""Logging: one line per event, each with the call it belongs to; numbers masked unless asked. Shell.

The current call lives in a context variable, which asyncio tasks inherit, so that every line logged on behalf
of a call carries its id without passing a logger around.
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from ari_app.texts import escaped

current_call: ContextVar[str] = ContextVar("current_call", default="-")


class _CallFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.call = current_call.get()
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (ISO 8601, UTC, ms), level, logger, call, message, exception."""

    def format(self, record: logging.LogRecord) -> str:
        call = getattr(record, "call", "-")
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "call": None if call == "-" else call,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return escaped(json.dumps(line, ensure_ascii=False))


class TextFormatter(logging.Formatter):
    """One line for each record, and none but ours: what callers and engines write begins no line of its own. The lines
    of a traceback are indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = escaped(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return "\n".join(f"    {escaped(line)}" for line in super().formatException(ei).split("\n"))


_TEXT = TextFormatter("%(asctime)s.%(msecs)03d %(levelname)-7s [%(call)s] %(name)s: %(message)s", "%H:%M:%S")


def configure(
    *, debug: bool, quiet: bool = False, log_format: Literal["auto", "text", "json"] = "auto"
) -> None:
    """Send log lines to standard error; the libraries' chatter stays at warning level.

    Args:
        debug: everything.
        quiet: errors only, for a command that tells its user by itself what happens.
        log_format: `auto` is text on a terminal and for a `quiet` command, JSON otherwise.
    """
    as_json = log_format == "json" or (log_format == "auto" and not quiet and not sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_CallFilter())
    handler.setFormatter(JsonFormatter() if as_json else _TEXT)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    usual = logging.ERROR if quiet else logging.INFO
    logging.getLogger("ari_app").setLevel(logging.DEBUG if debug else usual)


def is_json() -> bool:
    """True when `configure` has chosen JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def json_line(level: int, message: str) -> str:
    """What a command says by itself, in the form of the log lines around it."""
    record = logging.LogRecord("ari_app", level, "", 0, message, None, None)
    return JsonFormatter().format(record)


def mask_number(number: str) -> str:
    """A caller's number with all but the last three characters hidden: `+15551234567` → `*********567`."""
    return "*" * max(len(number) - 3, 0) + number[-3:] if len(number) > 3 else "*" * len(number)
