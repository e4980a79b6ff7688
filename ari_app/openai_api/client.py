"""What the three stages share: settings, one `AsyncOpenAI` client each, and errors in our own words. Shell.

Retries are off, because the SDK's wait up to two minutes: the pipeline decides what the caller hears instead.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp
import anyio._backends._asyncio  # noqa: F401 - the SDK would load it in the middle of the first call
import httpx2
import openai

from ari_app.dialog.usage import Request
from ari_app.errors import EngineError, EngineRejected, EngineTimeout, EngineUnreachable
from ari_app.openai_api import bounds
from ari_app.prices import Prices
from ari_app.texts import one_line

KEEPALIVE_S = 120.0
"""The SDK's 5 s would make every turn of a talkative caller pay for a new connection; LiveKit uses 120 s."""
CONNECT_S = 2.5
"""A caller waits: longer than two lost SYN packets is a failure."""
WARM_S = 3.0
PERMANENT_STATUSES = frozenset((401, 403, 404))
"""Key, rights, model or path: the next turn would meet the same. A 400 may be about one turn's content."""
EXHAUSTED = frozenset(("insufficient_quota", "billing_hard_limit_reached", "account_deactivated"))
_FAULTS = (openai.OpenAIError, httpx2.HTTPError, aiohttp.ClientError)
"""The last where the server speaks no HTTP: neither the SDK nor its transport has an error of its own for that."""
MAX_SERVER_WORDS = 200
MAX_COUNT = 1e9
"""Of tokens or seconds; what is more is no count."""


@dataclass(frozen=True, slots=True)
class StageSettings:
    """Where one engine stage is reached."""

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    read_timeout_s: float = 10.0
    """For the silence between two pieces of an answer; the pipeline's deadlines are shorter."""
    prices: Prices | None = None
    """None: not known."""


class StageClient:
    """One stage's connection pool, for all calls of the process, on one event loop."""

    def __init__(self, stage: str, settings: StageSettings) -> None:
        """`stage` is the name used in errors: "speech-to-text", "chat" or "text-to-speech"."""
        self.stage = stage
        self.model = settings.model
        self._base_url = settings.base_url
        self._api_key = settings.api_key
        self._prices = settings.prices
        timeout = httpx2.Timeout(settings.read_timeout_s, connect=CONNECT_S, pool=CONNECT_S)
        limits = httpx2.Limits(
            max_connections=1000, max_keepalive_connections=100, keepalive_expiry=KEEPALIVE_S
        )
        self.openai = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=settings.api_key or "none",  # the SDK refuses an empty one; local servers need none
            max_retries=0,
            timeout=timeout,
            # aiohttp's parser is in C: a tenth less processor time per call than the SDK's default.
            http_client=openai.DefaultAioHttpClient(
                timeout=timeout, limits=limits, event_hooks={"response": [bounds.bound]}
            ),
            default_headers=bounds.HEADERS,
        )

    async def warm(self) -> None:
        """Open a connection before it is needed.

        Raises:
            EngineError: the server is not there or refuses us; the first real request would say the same.
        """
        try:
            async with asyncio.timeout(WARM_S):
                with self.errors():
                    await self.openai.models.with_raw_response.list(timeout=WARM_S)
        except TimeoutError:  # aiohttp's own is not for a body whose trailer is malformed
            raise EngineTimeout(self.stage, f"{self._base_url} did not answer in time") from None

    async def close(self) -> None:
        """Close all connections; idempotent."""
        await self.openai.close()

    def request(self) -> Request:
        """A request to be counted; enter it around `errors`."""
        return Request(self.stage, self.model, self._prices)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate the SDK's errors.

        Raises:
            EngineError: in place of any `openai.OpenAIError` or transport error, or of an unusable answer.
        """
        try:
            yield
        except (*_FAULTS, ValueError, RecursionError) as error:
            raise self._told(error) from None

    def _told(self, error: Exception) -> EngineError:
        causes = list(_causes(error))
        reason = causes[-1]
        for cause in causes:
            if isinstance(cause, bounds.AnswerTooLong):
                return EngineError(self.stage, f"the server {cause}")
        match error:
            case openai.APITimeoutError() | httpx2.TimeoutException():
                # The SDK's transport calls it a time-out too when nobody listens or the name is unknown.
                if not isinstance(reason, OSError) or isinstance(reason, TimeoutError):
                    return EngineTimeout(self.stage, f"{self._base_url} did not answer in time")
            case openai.APIStatusError():
                return self._rejected(error)
            case openai.APIConnectionError() | httpx2.TransportError():
                pass
            case openai.APIError():  # an error event in the middle of a stream
                return EngineError(self.stage, f"the server broke off: {self._words(error.message)}")
            case _:  # an answer that is not what the API promises
                return EngineError(self.stage, f"unusable answer: {type(error).__name__}")
        words = self._words(str(reason) or type(reason).__name__)
        return EngineUnreachable(self.stage, f"no connection to {self._base_url}: {words}")

    def _rejected(self, error: openai.APIStatusError) -> EngineRejected:
        status = error.status_code
        exhausted = any(isinstance(said, str) and said in EXHAUSTED for said in (error.code, error.type))
        if status == 401:
            text = f"the API key was refused by {self._base_url}; set the right key"
        elif status == 403:
            text = f"the API key may not use model '{self.model}' at {self._base_url}"
        elif status == 404:
            text = f"{self._base_url} knows no model '{self.model}', or has no such service"
        elif exhausted:
            text = "the account has no credit left; add credit or raise its limit"
        elif status == 429:
            text = "too many requests for the account's rate limit"
        elif status >= 500:
            text = f"the server failed (HTTP {status})"
        else:
            text = f"the request was refused (HTTP {status}): {self._server_words(error)}"
        permanent = exhausted or status in PERMANENT_STATUSES
        return EngineRejected(
            self.stage,
            text,
            permanent=permanent,
            status=status,
            retry_after_s=_retry_after_s(error.response.headers.get("retry-after", "")),
        )

    def _server_words(self, error: openai.APIStatusError) -> str:
        body = error.body
        message = body.get("message") if isinstance(body, dict) else None
        return self._words(message if isinstance(message, str) else "no reason given")

    def _words(self, text: str) -> str:
        """A server's words on one line of bounded length; some servers quote the key."""
        if self._api_key:
            text = text.replace(self._api_key, "***")
        return one_line(text, MAX_SERVER_WORDS)


def _retry_after_s(text: str) -> float | None:
    """Of the header; a date is not worth the trouble."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


def count_of(usage: object, name: str, scale: int = 1) -> int:
    """A number of a `usage` object, 0 where the server did not send one."""
    value = usage.get(name) if isinstance(usage, dict) else getattr(usage, name, None)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < MAX_COUNT:
        return 0
    return round(value * scale)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what is behind it; the last one says more than "Connection error."."""
    while error:
        yield error
        error = error.__cause__ or error.__context__
