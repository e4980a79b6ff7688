"""What an operator can do to a call that goes on. Shell."""

from __future__ import annotations

import logging
from collections import Counter

from ari_app.calls import Calls
from ari_app.dialog.phrasebook import Sentence
from ari_app.errors import LimitReached, NoSuchCall
from ari_app.logs import mask_number

logger = logging.getLogger(__name__)

MAX_WAITING = 5
"""Sentences of a call that are being made or wait to be said."""


class Desk:
    """Steers calls by their ids; the log says by whom. What a call can't do raises NoSuchCall, whose text says why."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._making: Counter[str] = Counter()
        """Sentences that are no sound yet, by call."""

    async def place(self, number: str, by: str) -> str:
        """See `Calls.place`."""
        call_id = await self._calls.place(number)
        logger.info("call %s is placed by %s", call_id, by)
        return call_id

    def hang_up(self, call_id: str, by: str) -> None:
        """End it from our side."""
        self._calls.find(call_id).call.hang_up("hung up by an operator")
        logger.info("call %s is hung up by %s", call_id, by)

    def transfer(self, call_id: str, extension: str, by: str) -> None:
        """Give the caller back to the dialplan, which finds `extension` in ARI_APP_TRANSFER."""
        call = self._calls.find(call_id).call
        if not call.is_inbound:
            raise NoSuchCall(f"call {call_id} is outbound: only callers can be transferred")
        call.transfer(extension)
        logger.info("call %s is transferred to %s by %s", call_id, mask_number(extension), by)

    def pause_recording(self, call_id: str, paused: bool, by: str) -> None:
        """Keep nothing from now on, or go on."""
        if not self._calls.find(call_id).call.recording.pause(paused):
            raise NoSuchCall(f"call {call_id} is not recorded")
        logger.info("the recording of call %s is %s by %s", call_id, "paused" if paused else "resumed", by)

    async def say(self, call_id: str, text: str, by: str) -> None:
        """Say a sentence in the bot's name, after what is being said now.

        Raises:
            EngineError: it can't be spoken.
            LimitReached: enough others wait.
        """
        announcer = self._calls.find(call_id).announcer
        render = self._calls.brains.render
        if render is None:
            raise NoSuchCall(f"call {call_id} has no voice of its own: MODE is echo")
        if announcer.waiting + self._making[call_id] >= MAX_WAITING:
            raise LimitReached(f"{MAX_WAITING} sentences wait to be said in call {call_id}: try again later.")
        self._making[call_id] += 1
        try:
            sentence = Sentence(text, await render(text))
        finally:
            self._making[call_id] -= 1
            self._making += Counter()  # keeps only those that are not 0
        if not announcer.say(sentence):
            raise NoSuchCall(f"call {call_id} is not in conversation")
        logger.info("the bot says a sentence of %d characters in call %s for %s", len(text), call_id, by)
