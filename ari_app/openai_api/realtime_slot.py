"""One response at a time: the slot through which every `response.create` of a conversation goes. Core.

    FREE ──request──> REQUESTED ──created──> ACTIVE ──done──> FREE (and the waiting request is sent)
      └──────────created (made by the server's turn detection)──┘

The server answers a second `response.create` with an error. Its own turn detection makes responses too, so a
request can lose a race: then it waits for the end of that response, and is only sent again if the response came
to nothing, because one that was completed has answered it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ari_app.openai_api.realtime_protocol import Event

ACTIVE_RESPONSE = "conversation_already_has_active_response"


class ResponseSlot:
    """Lives as long as one session."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send = send
        self._count = 0
        self._requested: str | None = None
        self._sent: dict[str, Any] = {}
        self._active: str | None = None
        self._waiting: dict[str, Any] | None = None
        self._lost_race = False
        self._unwanted = False
        """The caller spoke after the request: its response is cancelled as soon as it is created."""

    @property
    def busy(self) -> bool:
        """A response is asked for, or is being made."""
        return self._requested is not None or self._active is not None

    def request(self, response: dict[str, Any] | None = None) -> None:
        """Ask for a response, now or when the slot is free; a newer wish takes the place of a waiting one."""
        self._lost_race = False
        if self.busy:
            self._waiting = response or {}
            return
        self._count += 1
        self._unwanted = False
        self._requested = f"response-{self._count}"
        self._sent = response or {}
        more = {"response": response} if response else {}
        self._send({"type": "response.create", "event_id": self._requested, **more})

    def withdraw(self) -> None:
        """What waits, or was asked for and is not created yet, is not wanted any more."""
        self._waiting = None
        self._unwanted = self._requested is not None

    def cancel(self) -> None:
        """Stop the response that is being made."""
        if self._active:
            self._send({"type": "response.cancel", "response_id": self._active})

    def created(self, response_id: str) -> bool:
        """A response was created, whoever asked for it; False when nobody wants it any more."""
        unwanted, self._unwanted = self._unwanted and self._requested is not None, False
        self._requested = None
        self._active = response_id
        if unwanted:
            self.cancel()
        return not unwanted

    def done(self, response_id: str, status: str) -> None:
        """A response has ended."""
        if response_id != self._active and self._active != "":
            return
        self._active = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not (self._lost_race and status == "completed"):
            self.request(waiting)

    def refused(self, event_id: str, code: str) -> bool:
        """An error came for `event_id`; False when that is no request of ours."""
        if not event_id.startswith("response-"):
            return False
        if event_id != f"response-{self._count}":
            return True
        self._requested = None
        unwanted, self._unwanted = self._unwanted, False
        if code == ACTIVE_RESPONSE:
            self._active = self._active or ""  # of a response whose creation is still on its way to us
            if not unwanted:
                self._waiting, self._lost_race = self._sent, True
        elif self._waiting is not None and self._active is None:
            waiting, self._waiting = self._waiting, None
            self.request(waiting)
        return True
