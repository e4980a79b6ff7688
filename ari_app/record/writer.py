"""The one thread that writes the recordings of all calls. Shell.

A thread per call costs more the more calls there are: each system call gives the interpreter away and queues for it
again, and the event loop queues with them. Nobody waits for this one: a disk that stands still holds up no call.
"""

from __future__ import annotations

import logging
import threading
from typing import Protocol

logger = logging.getLogger(__name__)

TICK_S = 0.2
"""So late are lines of the event log at most."""


class Writable(Protocol):
    """What is written."""

    def write(self) -> bool:
        """Write what is due; True when nothing more will come."""
        ...


class RecordWriter:
    """Its thread lives while there is something to write, and does not keep the process alive."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        """Over all below; never held while something is written."""
        self._living: list[Writable] = []
        self._hurry = False
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """How many are not over."""
        with self._changed:
            return len(self._living)

    def wait(self, timeout_s: float) -> bool:
        """Block until all are over; False when it takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._living, timeout_s)

    def add(self, writable: Writable) -> None:
        """Write it from now on.

        Raises:
            RuntimeError: the system has no thread left; nothing is remembered of it.
        """
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="recorder-writer", daemon=True)
                thread.start()  # it looks for work as soon as we let go of the lock
                self._thread = thread
            self._living.append(writable)
        self.hurry()

    def hurry(self) -> None:
        """Something is to be written at once."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()

    def _run(self) -> None:
        while living := self._next():
            over = [writable for writable in living if self._write(writable)]
            with self._changed:
                for writable in over:
                    self._living.remove(writable)
                self._changed.notify_all()

    def _next(self) -> list[Writable]:
        """Wait until it is time; empty: the thread ends."""
        with self._changed:
            if self._living:
                self._changed.wait_for(lambda: self._hurry, TICK_S)
            self._hurry = False
            if not self._living:
                self._thread = None
            return list(self._living)

    @staticmethod
    def _write(writable: Writable) -> bool:
        try:
            return writable.write()
        except Exception:  # a fault of ours in one recording must not cost the others theirs
            logger.exception("a recording failed; it is given up")
            return True
