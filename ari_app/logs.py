"""Logging: one line per event, each with the call it belongs to; numbers masked unless asked. Shell.

The current call lives in a context variable, which asyncio tasks inherit, so that every line logged on behalf
of a call carries its id without passing a logger around.
"""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar

current_call: ContextVar[str] = ContextVar("current_call", default="-")


class _CallFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.call = current_call.get()
        return True


def configure(*, debug: bool, quiet: bool = False) -> None:
    """Send log lines to standard error; the libraries' chatter stays at warning level.

    Args:
        debug: everything.
        quiet: errors only, for a command that tells its user by itself what happens.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_CallFilter())
    handler.setFormatter(
        logging.Formatter(
            "%(asctime)s.%(msecs)03d %(levelname)-7s [%(call)s] %(name)s: %(message)s", "%H:%M:%S"
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    usual = logging.ERROR if quiet else logging.INFO
    logging.getLogger("ari_app").setLevel(logging.DEBUG if debug else usual)


def mask_number(number: str) -> str:
    """A caller's number with all but the last three characters hidden: `+15551234567` → `*********567`."""
    return "*" * max(len(number) - 3, 0) + number[-3:] if len(number) > 3 else "*" * len(number)
