"""The connection to Asterisk: keeps our Stasis application registered and hands its events on. Shell."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType

import aiohttp

from ari_app.ari.events import ApplicationReplaced, Channel, Event, UnknownEvent, parse_event
from ari_app.ari.rest import AriRest
from ari_app.ari.transport import HEARTBEAT_S, Transport
from ari_app.errors import AriError, AriReplaced, AriUnauthorized

log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 1.0
"""Callers who come while the application is away hear that nobody can help them."""
REPEAT_LOG_S = 60.0
"""The same reason is not logged again sooner."""

OnConnected = Callable[["AriClient", Sequence[Channel]], Awaitable[None]]
"""Called after each (re)connect before any event of it is handed on, with the channels from before it."""


class AriClient:
    """One Stasis application on one Asterisk.

    Args:
        url: e.g. http://127.0.0.1:8088, without /ari.
        user, password: of ari.conf.
        app: name of the Stasis application.
        on_event: gets each event, in order, synchronously; what it raises is logged and costs that event.
        on_connected: see `OnConnected` and `reconcile.Reconciler`, which is made for it.
        retry_first: False for a short-lived process: `run` raises when the first connection fails.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        app: str,
        on_event: Callable[[Event], None],
        *,
        on_connected: OnConnected | None = None,
        retry_first: bool = True,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self.app = app
        self.registered = asyncio.Event()
        """Set while the application is registered and reconciled."""
        self._transport = Transport(url, user, password, heartbeat_s=heartbeat_s)
        self.rest = AriRest(self._transport, app)
        self._on_event = on_event
        self._on_connected = on_connected
        self._retry_first = retry_first
        self._was_registered = False
        self._failures = 0
        """Since the application was last registered."""
        self._complaint = _Complaint()

    async def __aenter__(self) -> AriClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()

    async def run(self) -> None:
        """Stay registered until cancelled; events come from here.

        Raises:
            AriUnauthorized: the very first connection was refused for its user or password.
            AriUnreachable: the first connection failed, and `retry_first` is False.
            AriReplaced: another process registered the application.
        """
        while True:
            try:
                reason = await self._stay_connected()
            except AriReplaced:
                raise
            except AriError as error:
                hopeless = isinstance(error, AriUnauthorized) or not self._retry_first
                if hopeless and not self._was_registered:
                    raise
                reason = str(error)
            self._complaint.log(reason, self._transport.url)
            # Jitter, so that many processes do not come back in step.
            delay_s = min(FIRST_DELAY_S * 2**self._failures, LONGEST_DELAY_S) * random.uniform(0.5, 1.0)
            self._failures = min(self._failures + 1, 16)
            await asyncio.sleep(delay_s)

    def dispatch(self, event: Event) -> None:
        """Hand one event on; a fault in its handler is logged and costs this event only."""
        try:
            self._on_event(event)
        except Exception:
            log.exception("the handler of %s failed", type(event).__name__)

    async def _stay_connected(self) -> str:
        """One connection from gate to end; returns why it ended."""
        await self.rest.open()
        before = await self.rest.list_channels()
        async with await self.rest.event_websocket() as websocket:
            try:
                await self.rest.filter_events()
                if self._on_connected is not None:
                    await self._on_connected(self, before)
                self._was_registered, self._failures = True, 0
                self.registered.set()
                self._complaint.settle(self.app, self._transport.url)
                return await self._read(websocket)
            except (aiohttp.ClientError, OSError) as error:
                return f"the event websocket broke ({type(error).__name__})"
            finally:
                self.registered.clear()

    async def _read(self, websocket: aiohttp.ClientWebSocketResponse) -> str:
        async for message in websocket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            try:
                event = parse_event(message.data)
            except ValueError as fault:
                log.warning("dropped an event of Asterisk: %s", fault)
                continue
            if isinstance(event, ApplicationReplaced) and event.application == self.app:
                raise AriReplaced(
                    f"keep the Stasis application {self.app}",
                    None,
                    "another process registered it: stop that one, or set ARI_APP to another name for one",
                )
            if not isinstance(event, UnknownEvent):
                self.dispatch(event)
        return f"the event websocket was closed ({websocket.close_code})"


class _Complaint:
    """Says once that the connection is away and why, and once that it is back."""

    def __init__(self) -> None:
        self._reason = ""
        self._logged_at = 0.0
        self._since = 0.0

    def log(self, reason: str, url: str) -> None:
        """The connection is away."""
        now = time.monotonic()
        self._since = self._since or now
        if reason != self._reason or now - self._logged_at >= REPEAT_LOG_S:
            log.warning("no connection to Asterisk at %s: %s; trying again", url, reason)
            self._reason, self._logged_at = reason, now

    def settle(self, app: str, url: str) -> None:
        """It is back."""
        away = f" again, after {time.monotonic() - self._since:.1f} s" if self._since else ""
        log.info("Stasis application %s is registered at %s%s", app, url, away)
        self._reason, self._since = "", 0.0
