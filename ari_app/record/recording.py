"""A call's recorder, opened and closed off the event loop; or none, and then everything here does nothing. Shell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ari_app.dialog.ports import Fact
from ari_app.record.recorder import Recorder

logger = logging.getLogger(__name__)

OpenRecorder = Callable[[float], Recorder]
"""From the loop time at which the conversation begins to a new recorder; blocks; raises OSError."""


class Recording:
    """What becomes of a call's audio and words. `push_*` and `note` never block.

    Args:
        open_recorder: None: nothing is kept.
    """

    def __init__(self, open_recorder: OpenRecorder | None) -> None:
        self._open_recorder = open_recorder
        self._opening: asyncio.Task[Recorder] | None = None
        self._recorder: Recorder | None = None

    async def open(self) -> None:
        """Begin. Without room on the disk there is no recording: the caller matters more than the record."""
        if self._open_recorder is None:
            return
        now = asyncio.get_running_loop().time()
        # A task of its own: the thread cannot be stopped with this step, and what it opens must be closed.
        self._opening = asyncio.create_task(asyncio.to_thread(self._open_recorder, now))
        try:
            self._recorder = await asyncio.shield(self._opening)
        except OSError as error:
            logger.error("this call is not recorded: %s", error)

    @property
    def state(self) -> str:
        """`off`, `on` or `paused`."""
        if self._recorder is None:
            return "off"
        return "paused" if self._recorder.paused else "on"

    def pause(self, paused: bool) -> bool:
        """Pause or go on; False when there is no recording."""
        if self._recorder is not None:
            self._recorder.pause(paused)
        return self._recorder is not None

    def push_caller(self, frame: bytes, at: float) -> None:
        if self._recorder is not None:
            self._recorder.push_caller(frame, at)

    def push_bot(self, frame: bytes, at: float) -> None:
        if self._recorder is not None:
            self._recorder.push_bot(frame, at)

    def push_fact(self, fact: Fact) -> None:
        if self._recorder is not None:
            self._recorder.push_fact(fact)

    def note(self, event: str, **values: Any) -> None:
        if self._recorder is not None:
            self._recorder.note(event, **values)

    async def close(self) -> None:
        """Write what is left; idempotent."""
        if self._opening is None:
            return
        (recorder,) = await asyncio.gather(self._opening, return_exceptions=True)
        if isinstance(recorder, Recorder):
            await asyncio.to_thread(recorder.close)
