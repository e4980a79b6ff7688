"""GET /live and GET /ready for Kubernetes, Docker and load balancers. Shell.

Live: the event loop answers. Ready: the next call will be taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType

from aiohttp import web

from ari_app.errors import SetupError

State = Callable[[], Mapping[str, object]]
"""What /ready shows; `ready` is its verdict."""


class Health:
    """The HTTP server. Tells nothing that an outsider may not know: no number, no name, no setting.

    Args:
        port: 0 for any free one.
    """

    def __init__(self, host: str, port: int, state: State) -> None:
        self._host = host
        self._port = port
        self._state = state
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._runner is not None
        port: int = self._runner.addresses[0][1]
        return port

    async def __aenter__(self) -> Health:
        app = web.Application()
        app.router.add_get("/live", self._live)
        app.router.add_get("/ready", self._ready)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise SetupError(
                f"cannot listen on {self._host} port {self._port} (HEALTH_HOST, HEALTH_PORT): {error.strerror}"
            ) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _live(self, request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, request: web.Request) -> web.Response:
        state = self._state()
        return web.json_response(dict(state), status=200 if state["ready"] else 503)
