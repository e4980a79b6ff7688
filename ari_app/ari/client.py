"""The connection to Asterisk: keeps our Stasis application registered and hands its events on. Shell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType

from ari_app.ari.events import Channel, Event
from ari_app.ari.rest import AriRest

OnConnected = Callable[[Sequence[Channel]], Awaitable[None]]
"""Called after each (re)connect, before events of it are handed on, with the channels from before it."""


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

    rest: AriRest
    registered: asyncio.Event
    """Set while the application is registered and reconciled."""

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
    ) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> AriClient:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    async def run(self) -> None:
        """Stay registered until cancelled.

        Raises:
            AriUnauthorized: the very first connection was refused for its user or password.
            AriUnreachable: the first connection failed, and `retry_first` is False.
            AriReplaced: another process registered the application.
        """
        raise NotImplementedError
