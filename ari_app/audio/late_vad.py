"""A detector that takes long to load, for calls that wait for nothing. Shell.

Loading a network takes a tenth of a second, and in the event loop all calls would stand still for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from ari_app.audio.vad import Vad, VadState

logger = logging.getLogger(__name__)

_loader = ThreadPoolExecutor(1, thread_name_prefix="vad-loader")
"""One for all calls: as many loads wait for it at most as calls go on."""


class LateVad:
    """Implements `Vad` by another, until its own is there.

    Args:
        load: makes it, in another thread.
        meanwhile: decides until then, and for the whole call should `load` fail.
    """

    def __init__(self, load: Callable[[], Vad], meanwhile: Vad) -> None:
        self._vad = meanwhile
        self._loading: Future[Vad | None] | None = _loader.submit(_loaded, load)

    @property
    def threshold_dbfs(self) -> float:
        return self._vad.threshold_dbfs

    def push(self, frame: bytes, now: float) -> VadState:
        if self._loading is not None and self._loading.done():
            self._vad, self._loading = self._loading.result() or self._vad, None
        return self._vad.push(frame, now)


def _loaded(load: Callable[[], Vad]) -> Vad | None:
    try:
        return load()
    except (
        Exception
    ) as error:  # a caller whom a simpler detector hears is better off than one who is not heard
        logger.error("VAD=neural did not load, energy decides instead: %s", error)
        return None
