"""Who may be called, how often and for how long: what stands before every outbound call. Shell."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator

from ari_app.apart import apart
from ari_app.ari.instances import state_directory
from ari_app.call import Call, Dial
from ari_app.config import Config
from ari_app.errors import ConfigError, SetupError
from ari_app.guard import is_number, refusal
from ari_app.ledger import Ledger

logger = logging.getLogger(__name__)

BUDGET_CHECK_S = 5.0
"""Calls in progress may together last so much longer than DIAL_DAILY_MINUTES."""
ASTERISK_LATER_S = 60
"""Asterisk's own limit on a call is later than ours by so much."""


class Outbound:
    """The rules of the settings and the ledger of this host."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._rules = config.dial_rules
        self._ledger = Ledger(state_directory(), self._rules)

    @contextlib.asynccontextmanager
    async def allowed(self, number: str) -> AsyncIterator[Dial]:
        """One call to `number`, written down for as long as the block lasts.

        Raises:
            ConfigError: it is no number, or may not be called.
            LimitReached: one call, or minute, too many.
            SetupError: the ledger can't be kept.
        """
        config = self._config
        if not is_number(number):
            raise ConfigError(
                f"'{number}' is not a number to call: use digits, * and #, with a + in front if needed."
            )
        if (reason := refusal(number, self._rules)) is not None:
            raise ConfigError(reason)
        limit_s = config.ring_timeout + config.max_call_seconds + ASTERISK_LATER_S
        entry = self._ledger.call(secrets.token_hex(8), limit_s)
        await apart(entry.__enter__)  # who is cancelled meanwhile drops it, which ends it
        try:
            yield Dial(
                config.dial_endpoint.replace("{number}", number), config.caller_id, config.ring_timeout
            )
        finally:
            await apart(lambda: entry.__exit__(None, None, None))

    async def watch_budget(self, call: Call) -> None:
        """End the call when the day's minutes are used up; to be cancelled when it ends before."""
        left_s, pause_s, told = 60.0 * self._rules.daily_minutes, 0.0, False
        while True:
            try:
                left_s = await apart(self._ledger.remaining_s)  # other processes spend it too
            except (SetupError, RuntimeError) as error:  # or no thread is left to read it
                if not told:
                    logger.warning("%s; until it can be read, this call's own time is counted", error)
                left_s, told = left_s - pause_s, True
            if left_s <= 0:
                break
            pause_s = min(left_s, BUDGET_CHECK_S)
            await asyncio.sleep(pause_s)
        call.hang_up(f"the {self._rules.daily_minutes} minutes of DIAL_DAILY_MINUTES are used up")
