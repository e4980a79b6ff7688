"""Where sessions are to be had: a Realtime server, and one that stands in for it. Shell without a socket."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from ari_app.dialog.engines import Engine, Engines
from ari_app.errors import EngineError
from ari_app.openai_api.realtime_protocol import STAGE, RealtimeSettings
from ari_app.openai_api.realtime_session import CONFIGURE_S, CONNECT_S, RealtimeClient, RealtimeSession


class RealtimeServers:
    """All that calls of the process are held over. The clients are entered and left by their owner."""

    def __init__(self, *clients: RealtimeClient) -> None:
        self.settings: RealtimeSettings = clients[0].settings
        """Of the first; the others differ in their model alone."""
        self.engines = Engines(STAGE, *clients, alone_s=CONNECT_S + CONFIGURE_S)
        self._origins: WeakKeyDictionary[RealtimeSession, Engine[RealtimeClient]] = WeakKeyDictionary()

    async def open(self, *, regardless: bool = False) -> RealtimeSession:
        """A session at the first server in service. What comes of it is to be told: `worked`, `failed`.

        Args:
            regardless: for a call that is in conversation: ask those out of service, too.

        Raises:
            EngineUnavailable: all are out of service.
            EngineError: the last one's reason.
        """
        session, engine = await self.engines.ask(
            lambda client: client.open(), regardless=regardless, whole=False
        )
        self._origins[session] = engine
        return session

    def worked(self, session: RealtimeSession) -> None:
        """The session brought an answer to its end."""
        self.engines.succeeded(self._origins[session])

    def failed(self, session: RealtimeSession, error: EngineError) -> None:
        """The session was opened, and did not do what it is for."""
        self.engines.failed(self._origins[session], error)
