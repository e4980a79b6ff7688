"""Where sessions are to be had: a Realtime server, and one that stands in for it. Shell without a socket."""

from __future__ import annotations

from ari_app.dialog.engines import Engines
from ari_app.openai_api.realtime_protocol import STAGE, RealtimeSettings
from ari_app.openai_api.realtime_session import CONFIGURE_S, CONNECT_S, RealtimeClient, RealtimeSession


class RealtimeServers:
    """All that calls of the process are held over. The clients are entered and left by their owner."""

    def __init__(self, *clients: RealtimeClient) -> None:
        self.settings: RealtimeSettings = clients[0].settings
        """Of the first; the others differ in their model alone."""
        self.engines = Engines(STAGE, *clients, alone_s=CONNECT_S + CONFIGURE_S)

    async def open(self, *, regardless: bool = False) -> RealtimeSession:
        """A session at the first server in service.

        Args:
            regardless: for a call that is in conversation: ask those out of service, too.

        Raises:
            EngineUnavailable: all are out of service.
            EngineError: the last one's reason.
        """
        session, _ = await self.engines.ask(lambda client: client.open(), regardless=regardless)
        return session
