"""What was dialled within the last 24 hours, shared by all processes of one state directory. Shell.

A file, replaced as a whole under a lock, so that a crash leaves the old or the new one; and a locked file for
each call in progress, which the kernel unlocks however its process ends. All of it may take as long as the disk does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

from ari_app.errors import LimitReached, SetupError
from ari_app.guard import Dialled, Rules, kept, limit_reached, remaining_s

LAST_S = 2.0**36
"""Of the wall clock that is believed: in the year 4147."""
LOCK_S = 1.0
"""Others hold it for some milliseconds, unless they were stopped or their disk hangs."""
LOCK_TO_END_S = 10.0
"""A call whose end is not written down counts as long as it might have lasted."""
RETRY_S = 0.01


class Ledger:
    """Lets outbound calls begin as far as the rules allow, and writes them down.

    Args:
        state_dir: of all our processes on this host; the files are in its folder `dialled`.
    """

    def __init__(self, state_dir: Path, rules: Rules) -> None:
        self._folder = state_dir / "dialled"
        self._rules = rules

    @contextlib.contextmanager
    def call(self, call_id: str, limit_s: float) -> Iterator[None]:
        """One outbound call, of at most `limit_s`.

        Raises:
            LimitReached: one more than a setting allows; the text names it.
            SetupError: the ledger can't be read or written, so nobody knows what was spent.
        """
        with contextlib.ExitStack() as stack:
            with self._faults():
                stack.enter_context(self._slot())
                self._begin(Dialled(call_id, time.time(), limit_s))
            try:
                yield
            finally:
                with self._faults():
                    self._end(call_id)

    def remaining_s(self) -> float:
        """Seconds that all calls together may still last.

        Raises:
            SetupError: the ledger can't be read.
        """
        with self._faults(), self._locked():
            return remaining_s(self._read(), self._rules, time.time())

    def why_not(self) -> str | None:
        """Why no call may begin now; None if one may.

        Raises:
            SetupError: the ledger can't be read.
        """
        with self._faults():
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(self._slot())
                except LimitReached as reason:
                    return str(reason)
            with self._locked():
                return limit_reached(self._read(), self._rules, time.time())

    # --- files

    def _slot(self) -> BinaryIO:
        """One of DIAL_CONCURRENT locked files; closing it frees the place."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(self._rules.concurrent):
            file = _open(self._folder / f"call-{number}.lock")
            if _try_lock(file):
                return file
            file.close()
        raise LimitReached(
            f"{self._rules.concurrent} outbound calls are in progress, and DIAL_CONCURRENT allows no more: "
            "wait, or raise it."
        )

    def _begin(self, call: Dialled) -> None:
        with self._locked():
            calls = kept(self._read(), call.started_at)
            if (reason := limit_reached(calls, self._rules, call.started_at)) is not None:
                raise LimitReached(reason)
            self._write([*calls, call])

    def _end(self, call_id: str) -> None:
        with self._locked(LOCK_TO_END_S):
            now = time.time()
            calls = [replace(c, ended_at=now) if c.call_id == call_id else c for c in self._read()]
            self._write(kept(calls, now))

    @contextlib.contextmanager
    def _locked(self, patience_s: float | None = None) -> Iterator[None]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path, patience_s = self._folder / "ledger.lock", patience_s or LOCK_S
        with _open(path) as file:
            gives_up_at = time.monotonic() + patience_s
            while not _try_lock(file):
                if time.monotonic() > gives_up_at:
                    raise SetupError(
                        f"another process has kept {path} locked for {patience_s:g} s: "
                        "find it with fuser, and end it."
                    )
                time.sleep(RETRY_S)
            yield

    @property
    def _path(self) -> Path:
        return self._folder / "ledger.json"

    def _read(self) -> list[Dialled]:
        try:
            return [_dialled(entry) for entry in json.loads(self._path.read_bytes())]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, RecursionError):
            # Nobody knows what was spent, so nothing more is: a person has to look.
            raise SetupError(
                f"{self._path} is damaged: delete it, and outbound calls are counted anew."
            ) from None

    def _write(self, calls: list[Dialled]) -> None:
        new = self._path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(json.dumps([asdict(call) for call in calls]).encode())
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SetupError(f"cannot keep a file in {self._folder}: {error.strerror}") from error


def _dialled(entry: Mapping[str, Any]) -> Dialled:
    """What was written down.

    Raises:
        ValueError, TypeError: it is no call.
    """
    call = Dialled(**entry)
    for seconds in (call.started_at, call.limit_s, 0.0 if call.ended_at is None else call.ended_at):
        if not 0 <= seconds < LAST_S:  # false for what is not a number, too
            raise ValueError(f"no time: {seconds}")
    if not isinstance(call.call_id, str):
        raise TypeError("no id")
    return call


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
