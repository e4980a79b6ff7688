"""Text-to-speech over the Realtime API: each sentence an out-of-band response of one warm session. Shell.

OpenAI names its Realtime models as the successors of `/audio/speech`. They converse, so they may reword: what
was spoken is compared with what was asked.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from difflib import SequenceMatcher

from ari_app.audio.format import TELEPHONE_RATE_HZ
from ari_app.dialog.ports import PcmChunk
from ari_app.dialog.usage import Request
from ari_app.errors import EngineError, EngineTimeout, EngineUnreachable
from ari_app.openai_api.realtime_protocol import (
    Downlink,
    Event,
    engine_error,
    object_of,
    read_aloud,
    text_of,
)
from ari_app.openai_api.realtime_session import RealtimeClient, RealtimeSession
from ari_app.openai_api.realtime_usage import token_counts
from ari_app.prices import Prices

logger = logging.getLogger(__name__)

STAGE = "text-to-speech"
PIECE_TIMEOUT_S = 4.0
"""Shorter than the pipeline's own patience, so that it is seen here that the session is of no use any more."""
MAX_PIECES = 4096
"""Of one sentence waiting to be taken; a server that sends more has run wild."""
RENEW_AT = 5 / 6
"""Of the session's life."""
MIN_LIFE_S = 3.0
RENEWAL_S = 1.5
"""Shorter than the pipeline's patience with a sentence, which waits for it."""
RENEW_AGAIN_S = 30.0
"""After a renewal that failed."""
MAX_SPOKEN_CHARS = 2000
"""Looked at of what was spoken: several times the longest sentence."""
SAME_WORDS = 0.8
"""Likeness of what was asked and what was spoken; figures and abbreviations are written in several ways."""


class _Segment:
    """One sentence on its way; `pieces` ends with None or an error."""

    def __init__(
        self, number: str, text: str, downlink: Downlink, session: RealtimeSession, request: Request
    ) -> None:
        self.number = number
        self.text = text
        self.downlink = downlink
        self.session = session
        self.spoken = ""
        self.response_id = ""
        self.abandoned = False
        self.pieces: asyncio.Queue[bytes | EngineError | None] = asyncio.Queue(MAX_PIECES)
        self.request = request
        """The server tells what it took, also of what was cancelled."""

    def put(self, piece: bytes | EngineError | None) -> None:
        if self.pieces.full():  # nobody would hear it in time
            self.pieces.get_nowait()
        self.pieces.put_nowait(piece)


class RealtimeTextToSpeech:
    """Implements `TextToSpeech`; `client` is entered and left by its owner."""

    def __init__(self, client: RealtimeClient, prices: Prices | None = None) -> None:
        self._client = client
        self._prices = prices
        self._opening = asyncio.Lock()
        self._session: RealtimeSession | None = None
        """For new sentences; an older one still speaks those it has begun."""
        self._readers: set[asyncio.Task[None]] = set()
        """One for each session; each closes its own."""
        self._renew_at = 0.0
        self._count = 0
        self._segments: dict[str, _Segment] = {}
        """By number; a few per call."""

    async def speak(self, text: str) -> AsyncGenerator[PcmChunk, None]:
        """Stream the speech of `text`; closing the iterator cancels.

        Raises:
            EngineError: before or between chunks.
        """
        session = await self._current()
        self._count += 1
        settings = self._client.settings
        request = Request(STAGE, settings.model, self._prices)
        segment = _Segment(f"segment-{self._count}", text, Downlink(settings), session, request)
        self._segments[segment.number] = segment
        session.send(
            {
                "type": "response.create",
                "event_id": segment.number,
                "response": read_aloud(text, segment.number),
            }
        )
        try:
            while (piece := await self._next(segment)) is not None:
                yield PcmChunk(piece, TELEPHONE_RATE_HZ)
        finally:
            self._cancel(segment)

    async def warm(self) -> None:
        """Open the session before it is needed.

        Raises:
            EngineError: refused or unreachable.
        """
        await self._current()

    async def close(self) -> None:
        """Close all sessions; idempotent."""
        self._session = None
        readers = list(self._readers)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    # --- sessions

    async def _current(self) -> RealtimeSession:
        async with self._opening:
            now = asyncio.get_running_loop().time()
            if self._session is not None and now > self._renew_at:
                await self._renew(self._session, now)
            if self._session is None:  # none was opened yet, or the old one has ended
                await self._open(now)
            assert self._session is not None
            return self._session

    async def _renew(self, old: RealtimeSession, now: float) -> None:
        """Take another session if there is one; the old one still has a sixth of its life."""
        self._renew_at = now + RENEW_AGAIN_S
        try:
            async with asyncio.timeout(RENEWAL_S):
                await self._open(now)
        except (EngineError, TimeoutError) as error:
            why = str(error) or f"no session within {RENEWAL_S:g} s"
            logger.warning("the session is not renewed, the old one speaks on: %s", why)
        else:
            self._leave_when_done(old)

    async def _open(self, now: float) -> None:
        try:
            session = await self._client.open()
        except EngineError as error:
            raise _in_this_stage(error) from None
        self._session = session
        self._renew_at = now + max(MIN_LIFE_S, session.lifetime_s * RENEW_AT)
        reader = asyncio.create_task(self._read(session), name="realtime-tts")
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)

    async def _read(self, session: RealtimeSession) -> None:
        try:
            async with aclosing(session.events()) as events:
                async for event in events:
                    self._push(event)
        finally:
            if self._session is session:
                self._session = None
            for segment in [s for s in self._segments.values() if s.session is session]:
                del self._segments[segment.number]
                segment.request.end()
                segment.put(EngineUnreachable(STAGE, session.ended.message))
            await session.close()

    def _leave_when_done(self, session: RealtimeSession) -> None:
        """Leave a session that speaks no sentence any more and gets no new one."""
        if session is not self._session and not any(s.session is session for s in self._segments.values()):
            session.abandon("another session took its place")

    async def _next(self, segment: _Segment) -> bytes | None:
        try:
            async with asyncio.timeout(PIECE_TIMEOUT_S):
                piece = await segment.pieces.get()
        except TimeoutError:
            if self._session is segment.session:
                self._session = None  # the next sentence gets another
            segment.session.abandon("it stopped speaking")
            raise EngineTimeout(STAGE, f"no speech within {PIECE_TIMEOUT_S:g} s") from None
        if isinstance(piece, EngineError):
            raise piece
        return piece

    def _cancel(self, segment: _Segment) -> None:
        """Stop a response that is still being made; one that was not created yet is stopped when it is."""
        if segment.number not in self._segments:
            return
        segment.abandoned = True
        if segment.response_id:
            segment.session.send({"type": "response.cancel", "response_id": segment.response_id})

    # --- events

    def _push(self, event: Event) -> None:
        match text_of(event, "type"):
            case "response.created":
                response = object_of(event, "response")
                segment = self._segments.get(text_of(object_of(response, "metadata"), "segment"))
                if segment:
                    segment.response_id = text_of(response, "id")
                    if segment.abandoned:
                        self._cancel(segment)
            case "response.output_audio.delta":
                segment = self._of(text_of(event, "response_id"))
                if segment and not segment.abandoned:
                    self._play(segment, text_of(event, "delta"))
            case "response.output_audio_transcript.done":
                segment = self._of(text_of(event, "response_id"))
                if segment:
                    segment.spoken = text_of(event, "transcript")[:MAX_SPOKEN_CHARS]
            case "response.done":
                self._done(object_of(event, "response"))
            case "error":
                error = object_of(event, "error")
                failure = engine_error(error)
                segment = self._segments.pop(text_of(error, "event_id"), None)
                if segment:
                    segment.request.drop()
                    segment.put(_in_this_stage(failure))
                else:
                    logger.warning("the server remarked: %s", failure.message)

    def _of(self, response_id: str) -> _Segment | None:
        return next((s for s in self._segments.values() if s.response_id == response_id), None)

    def _play(self, segment: _Segment, delta: str) -> None:
        try:
            pcm = segment.downlink.push(delta)
        except ValueError as error:
            logger.warning("dropped a piece of speech: %s", error)
            return
        if pcm:
            segment.put(pcm)

    def _done(self, response: Event) -> None:
        segment = self._of(text_of(response, "id"))
        if segment is None:
            return
        del self._segments[segment.number]
        segment.request.took(**{k: n for k, n in token_counts(object_of(response, "usage")).items() if n > 0})
        segment.request.end()
        self._leave_when_done(segment.session)
        if text_of(response, "status") == "failed":
            details = object_of(object_of(response, "status_details"), "error")
            segment.put(_in_this_stage(engine_error(details)))
            return
        tail = segment.downlink.flush()
        if tail:
            segment.put(tail)
        segment.put(None)
        if not segment.abandoned and likeness(segment.text, segment.spoken) < SAME_WORDS:
            logger.warning("the voice reworded a sentence of %d characters", len(segment.text))
            logger.debug("asked “%s”, spoken “%s”", segment.text, segment.spoken)


def likeness(asked: str, spoken: str) -> float:
    """1.0 when the words are the same, case and punctuation apart; 0.0 when they have nothing in common."""
    wanted, got = (re.findall(r"[^\W_]+", text.lower()) for text in (asked, spoken))
    return SequenceMatcher(None, wanted, got, autojunk=False).ratio()


def _in_this_stage(error: EngineError) -> EngineError:
    return type(error)(STAGE, error.message, permanent=error.permanent)
