"""What becomes of a call's sound and words: a recording, and what others may know of them. Shell.

Without a recording everything here does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Protocol

from ari_app.dialog.ports import Fact
from ari_app.record.recorder import Recorder

logger = logging.getLogger(__name__)


class OpenRecorder(Protocol):
    """Makes the recorder of a call; does not block."""

    def __call__(self, started_at: float, on_failed: Callable[[str], None], /) -> Recorder:
        """`started_at` is the loop time at which the conversation begins, `on_failed` as in `Recorder`, and
        so is what it raises."""
        ...


class Recording:
    """One call's. Nothing here blocks.

    Args:
        open_recorder: None: nothing is kept.
        on_failed: is told once, on the loop, why the recording is not whole.
    """

    def __init__(
        self, open_recorder: OpenRecorder | None, on_failed: Callable[[str], None] = lambda why: None
    ) -> None:
        self._open_recorder = open_recorder
        self._on_failed = on_failed
        self._failure = ""
        """Why it is not whole."""
        self._recorder: Recorder | None = None
        self._conversing = False

    def open(self) -> None:
        """The conversation begins. A disk that takes long, or refuses, holds up nobody."""
        self._conversing = True
        self._begin()

    def _begin(self) -> None:
        if self._open_recorder is None or self._recorder is not None:
            return
        loop = asyncio.get_running_loop()

        def failed(why: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                loop.call_soon_threadsafe(self._fail, why)

        try:
            self._recorder = self._open_recorder(loop.time(), failed)
        except (
            RuntimeError
        ) as error:  # no thread is left that could write: the call goes on without its recording
            if not self._failure:
                logger.error("this call is not recorded: %s", error)
            self._fail(str(error))
            return
        if self._failure:
            self._recorder.note("recording_stopped", reason=self._failure)

    def _fail(self, why: str) -> None:
        if not self._failure:
            self._failure = why
            self._on_failed(why)

    @property
    def state(self) -> str:
        """`off`, `on`, `paused` or `failed`."""
        if self._recorder is None:
            return "failed" if self._failure else "off"
        if self._recorder.paused:
            return "paused"
        return "failed" if self._failure or self._recorder.failed else "on"

    @property
    def written(self) -> bool:
        """Nothing is left to write."""
        return self._recorder is None or self._recorder.written

    def pause(self, paused: bool) -> bool:
        """Pause or go on; False when there is no recording."""
        if self._recorder is not None:
            self._recorder.pause(paused, asyncio.get_running_loop().time())
        return self._recorder is not None

    def push_caller(self, frame: bytes, at: float) -> None:
        if self._recorder is not None and self._conversing:
            self._recorder.push_caller(frame, at)

    def push_bot(self, frame: bytes, at: float) -> None:
        if self._recorder is not None and self._conversing:
            self._recorder.push_bot(frame, at)

    def push_fact(self, fact: Fact) -> Fact:
        """Record it; returns it as others may know it: without the words of a pause."""
        if self._recorder is None:
            return fact
        return self._recorder.push_fact(fact, asyncio.get_running_loop().time())

    def end(self, **values: Any) -> None:
        """How the call ended; a call without a conversation leaves this line only."""
        self._begin()
        if self._recorder is not None:
            self._recorder.note("ended", **values)

    def finish(self) -> None:
        """Nothing more comes; what is left is written after the call. Idempotent."""
        self._conversing = False
        if self._recorder is not None:
            self._recorder.finish()
