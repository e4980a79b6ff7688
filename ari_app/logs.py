"""Logging: one line per event, each with the call it belongs to; numbers masked unless asked. Shell.

The current call lives in a context variable, which asyncio tasks inherit, so that every line logged on behalf
of a call carries its id without passing a logger around.

Lines are made where they are logged, and written by a thread: whoever reads standard error (Docker, a terminal, a
collector) may stop reading, and the calls must not stand still with them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import sys
import threading
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from ari_app.texts import escaped

current_call: ContextVar[str] = ContextVar("current_call", default="-")


MAX_WAITING = 4096
"""Lines that nobody has read yet; what comes after them is lost, and counted."""
LAST_S = 1.0
"""So long the end of the process waits for them to be read."""
STANDARD_ERROR = 2
RETRY_S = 0.05


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


class _Writer(logging.Handler):
    """Hands lines to a thread that writes them to a descriptor of its own for standard error."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[bytes | None] = queue.Queue(MAX_WAITING)
        self._lost = 0
        self._descriptor = os.dup(STANDARD_ERROR)
        threading.Thread(target=self._run, name="log-writer", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Under the handler's lock, as all that counts the lost."""
        try:
            self._put(self.format(record))
        except Exception:  # of a record whose arguments don't fit: told of as the standard library does
            self.handleError(record)

    def say(self, line: str) -> None:
        """A line that is no record."""
        self.acquire()
        try:
            self._put(line)
        finally:
            self.release()

    def flush(self) -> None:
        """Wait until all is written, but not long for who does not read."""
        if self._is_written() and self._lost:
            self._tell_lost()
            self._is_written()

    def close(self) -> None:
        """Let the thread end."""
        super().close()
        with contextlib.suppress(queue.Full):  # nobody reads: it ends with the process
            self._lines.put_nowait(None)

    def _put(self, line: str) -> None:
        try:
            if self._lost:
                self._tell_lost()
            self._lines.put_nowait(_bytes(line))
        except queue.Full:
            self._lost += 1

    def _tell_lost(self) -> None:
        what = f"{self._lost} lines of the log are lost: nobody read standard error"
        record = logging.LogRecord(__name__, logging.WARNING, "", 0, what, None, None)
        record.call = "-"
        self._lines.put_nowait(_bytes(self.format(record)))
        self._lost = 0

    def _is_written(self) -> bool:
        with self._lines.all_tasks_done:
            return self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, LAST_S)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            with contextlib.suppress(OSError):  # the reader is gone, and there is nobody else to tell
                _write(self._descriptor, line)
            self._lines.task_done()
        os.close(self._descriptor)


def _bytes(line: str) -> bytes:
    return f"{line}\n".encode(sys.stderr.encoding, "backslashreplace")


def _write(descriptor: int, line: bytes) -> None:
    while line:
        try:
            line = line[os.write(descriptor, line) :]
        except BlockingIOError:  # another process with the same terminal or pipe has made it so
            time.sleep(RETRY_S)


def _writers() -> list[_Writer]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, _Writer)]


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
    for former in _writers():
        former.close()
    handler = _Writer()
    handler.addFilter(_CallFilter())
    handler.setFormatter(JsonFormatter() if as_json else _TEXT)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    usual = logging.ERROR if quiet else logging.INFO
    logging.getLogger("ari_app").setLevel(logging.DEBUG if debug else usual)


def is_json() -> bool:
    """True when `configure` has chosen JSON."""
    return any(isinstance(writer.formatter, JsonFormatter) for writer in _writers())


def say(line: str) -> None:
    """What a command says by itself on standard error: after the log's lines before it, waiting for no reader."""
    for writer in _writers():
        writer.say(line)
        return
    sys.stderr.write(f"{line}\n")  # before `configure`


def json_line(level: int, message: str) -> str:
    """What a command says by itself, in the form of the log lines around it."""
    record = logging.LogRecord("ari_app", level, "", 0, message, None, None)
    return JsonFormatter().format(record)


def mask_number(number: str) -> str:
    """A caller's number with all but the last three characters hidden: `+15551234567` → `*********567`."""
    return "*" * max(len(number) - 3, 0) + number[-3:] if len(number) > 3 else "*" * len(number)
