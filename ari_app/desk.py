"""What an operator can do to a call that goes on. Shell."""

from __future__ import annotations

import logging

from ari_app.calls import Calls
from ari_app.dialog.phrasebook import Sentence
from ari_app.errors import NoSuchCall

logger = logging.getLogger(__name__)


class Desk:
    """Steers calls by their ids. Whatever a call can't do raises NoSuchCall, whose text says why."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def place(self, number: str) -> str:
        """See `Calls.place`."""
        return self._calls.place(number)

    def hang_up(self, call_id: str) -> None:
        """End it from our side."""
        self._calls.find(call_id).call.hang_up("hung up by an operator")
        logger.info("an operator hangs up call %s", call_id)

    def transfer(self, call_id: str, extension: str) -> None:
        """Give the caller back to the dialplan, which finds `extension` in ARI_APP_TRANSFER."""
        call = self._calls.find(call_id).call
        if not call.is_inbound:
            raise NoSuchCall(f"call {call_id} is outbound: only callers can be transferred")
        call.transfer(extension)
        logger.info("an operator transfers call %s to %s", call_id, extension)

    def pause_recording(self, call_id: str, paused: bool) -> None:
        """Keep nothing from now on, or go on."""
        if not self._calls.find(call_id).call.recording.pause(paused):
            raise NoSuchCall(f"call {call_id} is not recorded")
        logger.info("an operator %s the recording of call %s", "pauses" if paused else "resumes", call_id)

    async def say(self, call_id: str, text: str) -> None:
        """Say a sentence in the bot's name, after what is being said now.

        Raises:
            EngineError: it can't be spoken.
        """
        announcer = self._calls.find(call_id).announcer
        render = self._calls.brains.render
        if render is None:
            raise NoSuchCall(f"call {call_id} has no voice of its own: MODE is echo")
        if not announcer.say(Sentence(text, await render(text))):
            raise NoSuchCall(f"call {call_id} is not in conversation")
        logger.info("an operator lets the bot say a sentence in call %s", call_id)
