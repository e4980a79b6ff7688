"""When an engine that fails is not asked any more, and when it is tried again. Core; time comes in as `now`."""

from __future__ import annotations

from ari_app.errors import EngineError, EngineRejected

MAX_FAILURES = 3
"""In a row; a failure that can't pass by itself, and a server's own wish for a pause, count for all of them."""
FIRST_PAUSE_S = 3.0
"""Then one request tries it; each try that fails doubles the pause."""
LONGEST_PAUSE_S = 60.0
SHORT_WISH_S = 1.0
"""A server that wants no longer pause can be asked again while the caller waits."""


class Breaker:
    """One engine's, shared by all calls."""

    def __init__(self) -> None:
        self.failures = 0
        """In a row."""
        self.why = ""
        """The last failure."""
        self._pause_s = 0.0
        """The present one; 0: the engine is in service."""
        self._last_pause_s = 0.0
        """The latest one, until the engine has answered to the end again."""
        self._until = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        """The engine is out of service."""
        return self._pause_s > 0

    def retry_in_s(self, now: float) -> float:
        """So long nobody asks it."""
        return max(self._until - now, 0.0) if self.is_open else 0.0

    def allows(self, now: float) -> bool:
        """True when a request may be sent, which then must come to `began`, `succeeded`, `failed` or `left`.

        After a pause it is True for one request, which tries the engine for all.
        """
        if not self.is_open:
            return True
        if self._probing or now < self._until:
            return False
        self._probing = True
        return True

    def began(self) -> None:
        """It begins to answer: it is in service, and one failure puts it out again until it has `succeeded`."""
        self._pause_s, self._probing = 0.0, False

    def succeeded(self) -> bool:
        """It answered to the end; True when it had been out of service."""
        had_pause = self._last_pause_s > 0
        self.failures, self._pause_s, self._last_pause_s, self._probing = 0, 0.0, 0.0, False
        return had_pause

    def failed(self, error: EngineError, now: float) -> bool:
        """It did not answer as it should; True when that takes it out of service, the first time since it worked."""
        self.failures += 1
        self.why = error.message
        was_open, self._probing = self.is_open, False
        wished_s = (error.retry_after_s or 0.0) if isinstance(error, EngineRejected) else 0.0
        if not (was_open or error.permanent or wished_s > SHORT_WISH_S or self.failures >= MAX_FAILURES):
            return False
        if was_open and now < self._until:  # a request from before, or one that was sent regardless
            return False
        worked, pause_s = not self._last_pause_s, max(2 * self._last_pause_s or FIRST_PAUSE_S, wished_s)
        self._pause_s = self._last_pause_s = min(pause_s, LONGEST_PAUSE_S)
        self._until = now + self._pause_s
        return worked

    def left(self) -> None:
        """Nobody waited for the answer."""
        self._probing = False
