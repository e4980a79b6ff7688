"""The HTTP server: /live and /ready for whoever supervises us, the rest for who has the token. Shell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ari_app.errors import SetupError
from ari_app.metrics import CONTENT_TYPE, Metrics
from ari_app.web.access import Access, Handler
from ari_app.web.api import Api
from ari_app.web.door import Door
from ari_app.web.phone import Phone

logger = logging.getLogger(__name__)
protocol_logger = logging.getLogger(f"{__name__}.protocol")


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Who sends what is no HTTP is told so; a traceback of each would be a way to fill the log."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


protocol_logger.addFilter(_is_worth_a_line)

State = Callable[[], Mapping[str, Any]]
"""What /ready shows; `ready` is its verdict."""
MAX_BODY_BYTES = 64 * 1024
KEEPALIVE_S = 30.0
"""An idle connection is closed: Prometheus and load balancers come every few seconds."""
BACKLOG = 128
CONSOLE = Path(__file__).parent / "console"
PAGES = {"/": "console.html", "/login": "login.html"}
"""The console's pages; its other files are served under their own names."""


class Web:
    """The server.

    Live: the event loop answers. Ready: the next call will be taken. Both tell nothing that an outsider may not know:
    no number, no name, no setting.

    Args:
        port: 0 for any free one.
        state: what /ready shows.
        access: stands before all other paths.
    """

    def __init__(
        self,
        host: str,
        port: int,
        state: State,
        *,
        access: Access,
        api: Api,
        metrics: Metrics,
        phone: Phone,
    ) -> None:
        self._host = host
        self._port = port
        self._state = state
        self._metrics = metrics
        self._app = app = web.Application(middlewares=[access.middleware], client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/live", self._live)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/metrics", self._scrape)
        app.router.add_post("/login", access.login)
        app.router.add_post("/logout", access.logout)
        app.router.add_routes([*api.routes(), *phone.routes()])
        for path, name in PAGES.items():
            app.router.add_get(path, _page(CONSOLE / name))
        for file in sorted(CONSOLE.iterdir()):
            if file.suffix != ".html":
                app.router.add_get(f"/{file.name}", _page(file))
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._listener is not None
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Web:
        # Who follows the calls and goes away ends the handler that serves them.
        self._runner = web.AppRunner(
            self._app,
            access_log=None,
            shutdown_timeout=0.5,
            handler_cancellation=True,
            keepalive_timeout=KEEPALIVE_S,
            logger=protocol_logger,
        )
        await self._runner.setup()
        assert self._runner.server is not None
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                Door(self._runner.server), self._host, self._port, backlog=BACKLOG
            )
        except OSError as error:
            await self._runner.cleanup()
            raise SetupError(
                f"cannot listen on {self._host} port {self._port} (WEB_HOST, WEB_PORT): {error.strerror}"
            ) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None and self._listener is not None
        self._listener.close()
        await self._runner.cleanup()

    async def _live(self, request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, request: web.Request) -> web.Response:
        state = self._state()
        return web.json_response(dict(state), status=200 if state["ready"] else 503)

    async def _scrape(self, request: web.Request) -> web.Response:
        self._metrics.show(self._state(), len(asyncio.all_tasks()))
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})


def _page(path: Path) -> Handler:
    async def serve(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(path)

    return serve
