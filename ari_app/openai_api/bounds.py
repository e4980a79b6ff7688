"""How much of an engine's answer is read: a server that has gone wild costs its answer, not our memory. Shell.

Neither HTTP nor the SDK knows a limit. Compressed answers are refused, because a small one can become a large one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

MAX_ANSWER_BYTES = 8 * 2**20
"""A minute of speech at 48 kHz has 6 MB, and that is where text-to-speech is cut off."""
MAX_EVENT_BYTES = 64 * 2**10
"""Of a stream of events one is a word or two."""
HEADERS = {"Accept-Encoding": "identity"}
_BLANK_LINES = (b"\n\n", b"\r\r", b"\r\n\r\n")


class AnswerTooLong(httpx2.TransportError):
    """More came than any answer has; its text ends the sentence "the server ..."."""


async def bound(response: httpx2.Response) -> None:
    """A hook of the HTTP client: limits what can be read of an answer.

    Raises:
        AnswerTooLong: it is compressed, or says itself that it is too long.
    """
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise AnswerTooLong("compressed its answer, which we did not ask for")
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and len(length) < 20 and int(length) > MAX_ANSWER_BYTES:
        raise AnswerTooLong(f"wants to send {int(length) // 2**20} MiB")
    has_events = response.headers.get("Content-Type", "").lower().startswith("text/event-stream")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream, has_events=has_events)


class _Bounded(httpx2.AsyncByteStream):
    """A body that ends in an error when it goes on too long."""

    def __init__(self, stream: httpx2.AsyncByteStream, *, has_events: bool) -> None:
        self._stream = stream
        self._has_events = has_events
        self._read_bytes = 0
        self._event_bytes = 0
        self._tail = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._read_bytes += len(piece)
            if self._read_bytes > MAX_ANSWER_BYTES:
                raise AnswerTooLong(f"sent more than {MAX_ANSWER_BYTES // 2**20} MiB")
            if self._has_events:
                self._measure(piece)
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()

    def _measure(self, piece: bytes) -> None:
        """How long the event is that is not over; a piece may begin inside a blank line."""
        seen = self._tail + piece
        end = max(seen.rfind(blank) + len(blank) if blank in seen else -1 for blank in _BLANK_LINES)
        self._event_bytes = len(seen) - end if end >= 0 else self._event_bytes + len(piece)
        self._tail = seen[-3:]
        if self._event_bytes > MAX_EVENT_BYTES:
            raise AnswerTooLong(f"sent an event of more than {MAX_EVENT_BYTES // 2**10} KiB")
