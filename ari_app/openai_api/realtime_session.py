"""One Realtime session: a WebSocket that is configured, checked, written to and read. Shell.

A thin client on aiohttp: the SDK's costs ten times as much per event, and its reconnect gives a blank session.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from types import TracebackType
from urllib.parse import urlsplit

import aiohttp

from ari_app.errors import EngineError, EngineRejected, EngineTimeout, EngineUnreachable
from ari_app.openai_api.realtime_protocol import (
    MAX_CODE_CHARS,
    STAGE,
    Event,
    RealtimeSettings,
    check_session,
    engine_error,
    number_of,
    object_of,
    realtime_url,
    session_update,
    text_of,
)
from ari_app.openai_api.realtime_usage import Priced
from ari_app.prices import Prices
from ari_app.texts import one_line

logger = logging.getLogger(__name__)

CONNECT_S = 5.0
CONFIGURE_S = 5.0
CLOSE_S = 1.0
LIFETIME_S = 3600.0
"""Where the server does not say how long a session lasts."""
HEARTBEAT_S = 10.0
"""A peer that does not answer a ping within half of it is gone."""
MAX_EVENT_CHARS = 3 * 2**20
"""Half a minute of speech, as the largest item has it, has two thirds of it; a longer event is passed over."""
MAX_FRAME_BYTES = 16 * 2**20
"""With a longer one aiohttp ends the connection."""
MAX_UNSENT = 512
"""Ten seconds of audio. When so much waits, the connection stands still and the session is taken for lost."""
PERMANENT_STATUSES = frozenset((401, 403, 404))
BETA_DISABLED = 4000
CONFIGURATION = "configuration"


class RealtimeClient:
    """Where sessions are opened; one per process and set of settings.

    Args:
        base_url: REST base URL of the server, e.g. `https://api.openai.com/v1`.
        prices: of the model, where they are known.
        listening_prices: of the one that writes down what the caller says.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        settings: RealtimeSettings,
        *,
        listens: bool = True,
        prices: Prices | None = None,
        listening_prices: Prices | None = None,
    ) -> None:
        self.settings = settings
        self._paid = (Priced(settings.model, prices), Priced(settings.transcription_model, listening_prices))
        self._url = realtime_url(base_url, settings.model)
        self._update = session_update(settings, CONFIGURATION, listens=listens)
        azure = (urlsplit(base_url).hostname or "").endswith(".azure.com")
        self._key = api_key
        key = api_key or "none"
        self._headers = {"api-key": key} if azure else {"Authorization": f"Bearer {key}"}
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> RealtimeClient:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(connect=CONNECT_S)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http:
            await self._http.close()

    async def open(self) -> RealtimeSession:
        """Connect and configure; the session is to be closed by the caller.

        Raises:
            EngineError: refused, unreachable, or not as asked for.
        """
        session = RealtimeSession(await self._connect(), self._key, self._paid)
        try:
            async with asyncio.timeout(CONFIGURE_S):
                await session.configure(self._update, self.settings)
        except TimeoutError:
            await session.close()
            raise EngineTimeout(STAGE, f"the session was not configured within {CONFIGURE_S:g} s") from None
        except BaseException:
            await session.close()
            raise
        return session

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        assert self._http is not None, "enter the client first"
        try:
            async with asyncio.timeout(CONNECT_S):
                return await self._http.ws_connect(
                    self._url,
                    headers=self._headers,
                    heartbeat=HEARTBEAT_S,
                    compress=0,
                    max_msg_size=MAX_FRAME_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                )
        except TimeoutError:
            raise EngineTimeout(STAGE, f"no connection to {self._url} within {CONNECT_S:g} s") from None
        except aiohttp.WSServerHandshakeError as error:
            raise self._refused(error.status) from None
        except (aiohttp.ClientError, OSError) as error:
            raise EngineUnreachable(STAGE, f"no connection to {self._url}: {error}") from None

    def _refused(self, status: int) -> EngineRejected:
        texts = {
            401: "the API key was refused; set the right key",
            403: f"the API key may not use model '{self.settings.model}'",
            404: f"there is no model '{self.settings.model}', or no such service",
            429: "too many sessions or requests for the account's rate limit",
        }
        text = texts.get(status, "the connection was refused")
        permanent = status in PERMANENT_STATUSES
        words = f"{text} (HTTP {status} from {self._url})"
        return EngineRejected(STAGE, words, permanent=permanent, status=status)


class RealtimeSession:
    """Open until `events` ends; implements `Line`."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        key: str = "",
        paid: tuple[Priced, Priced] = (Priced(""), Priced("")),
    ) -> None:
        """`key` is struck out of whatever the server says; some servers quote it."""
        self.paid = paid
        """The models of the server that holds it: of the conversation, and of what writes the caller's words down."""
        self._socket = socket
        self._key = key
        self._unsent: asyncio.Queue[str] = asyncio.Queue(MAX_UNSENT)
        self._writer = asyncio.create_task(self._write(), name="realtime-writer")
        self._closing: asyncio.Task[bool] | None = None
        self._bad_frames = 0
        self.lifetime_s = LIFETIME_S
        """From now to its end, as the server says."""
        self.ended: EngineError = EngineUnreachable(STAGE, "the connection was closed")
        """Why `events` ended."""

    # --- Line

    def send(self, event: Event) -> None:
        self._put(json.dumps(event))

    def send_audio(self, audio: str) -> None:
        self._put(f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}')  # 50 a second

    def abandon(self, why: str) -> None:
        """Take it for lost: `events` ends."""
        self.ended = EngineUnreachable(STAGE, why)
        if self._closing is None:
            self._closing = asyncio.create_task(self._socket.close(), name="realtime-close")

    # --- the shell's side

    async def configure(self, update: Event, settings: RealtimeSettings) -> None:
        """Send the session's settings and wait until they are in force.

        Raises:
            EngineError: they were refused, or are not in force.
        """
        async with aclosing(self.events()) as events:
            async for event in events:
                match text_of(event, "type"):
                    case "session.created":
                        expires_at = number_of(object_of(event, "session"), "expires_at")
                        left_s = expires_at - time.time()
                        self.lifetime_s = left_s if left_s > 0 else LIFETIME_S  # or our clock is wrong
                        self.send(update)
                    case "session.updated":
                        check_session(object_of(event, "session"), settings)
                        return
                    case "error":
                        raise self._not_configured(object_of(event, "error"))
        raise self.ended

    def _not_configured(self, error: Event) -> EngineError:
        failure = engine_error(error)
        ours = text_of(error, "event_id") == CONFIGURATION
        if not ours or text_of(error, "type") != "invalid_request_error":
            return failure
        parameter = one_line(text_of(error, "param"), MAX_CODE_CHARS) or "the session"
        return EngineRejected(STAGE, f"{parameter} was refused: {failure.message}", permanent=True)

    async def events(self) -> AsyncGenerator[Event, None]:
        """The server's events until the connection ends; what is not one is passed over."""
        with suppress(aiohttp.ClientError, ConnectionError):  # a ping that can't be answered any more
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.ERROR:
                    break
                if message.type is not aiohttp.WSMsgType.TEXT:
                    self._bad_frame("is not text")
                    continue
                if len(message.data) > MAX_EVENT_CHARS:
                    self._bad_frame("is longer than any event")
                    continue
                text = message.data.replace(self._key, "***") if self._key else message.data
                try:
                    event = json.loads(text)
                except (ValueError, RecursionError):
                    self._bad_frame("is not JSON")
                    continue
                if isinstance(event, dict):
                    yield event
                    # A burst of audio would keep the loop, and with it the pacing of all calls, to itself.
                    await asyncio.sleep(0)
        if self._closing is None:
            code = self._socket.close_code
            self.ended = EngineRejected(
                STAGE, f"the server closed the connection (code {code})", permanent=code == BETA_DISABLED
            )

    def _bad_frame(self, what: str) -> None:
        self._bad_frames += 1
        if self._bad_frames == 1:
            logger.warning("the server sent a frame that %s; more of its kind are not reported", what)

    async def close(self) -> None:
        """Close the connection; idempotent. It is closed as well when this is cancelled."""
        self._writer.cancel()
        if self._closing is None:
            self._closing = asyncio.create_task(self._socket.close(), name="realtime-close")
        await asyncio.gather(self._writer, asyncio.shield(self._closing), return_exceptions=True)

    def _put(self, text: str) -> None:
        try:
            self._unsent.put_nowait(text)
        except asyncio.QueueFull:
            self.abandon("the server does not read what it is sent")

    async def _write(self) -> None:
        with suppress(aiohttp.ClientError, ConnectionError):  # the reader sees the end of the connection
            while True:
                await self._socket.send_str(await self._unsent.get())
