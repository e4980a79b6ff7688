"""One answer of the bot on its way from text pieces to the caller's ear. Shell, owned by the pipeline.

Pieces are synthesised concurrently, at most two ahead of the one being played, and played in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from ari_app.audio.format import TELEPHONE_RATE_HZ, bytes_to_ms
from ari_app.audio.resample import StreamResampler
from ari_app.dialog.history import heard_part
from ari_app.dialog.ports import BotSaid, ItemFinished, Playout, PlayoutMark, TextToSpeech
from ari_app.dialog.streams import Eager, within
from ari_app.errors import EngineError

logger = logging.getLogger(__name__)

STAGE = "text-to-speech"
AHEAD = 2
"""Pieces in work beyond the one being played: enough to hide an engine's delay behind one sentence."""
MAX_SEGMENT_MS = 60_000
"""No piece speaks that long; an engine that never stops is cut off here."""
MS_PER_CHAR = 65.0
"""Speaking rate assumed for a segment whose length is not known yet: about 15 characters per second."""


@dataclass(slots=True)
class _Segment:
    """One piece of text and its audio."""

    item_id: str
    text: str
    audio: Eager[bytes]
    """8 kHz."""
    sent: bytearray = field(default_factory=bytearray)
    """What was given to playout, 8 kHz."""
    complete: bool = False
    """All of its audio is in `sent`."""
    finished: bool = False
    """The caller heard its end."""
    closed: bool = False
    """Nothing more is added to `sent`."""

    @property
    def total_ms(self) -> float:
        sent_ms = bytes_to_ms(len(self.sent))
        return sent_ms if self.complete else max(sent_ms, len(self.text) * MS_PER_CHAR)


class Response:
    """Speaks one answer, and knows how much of it was heard.

    A held one is prepared and not spoken: all of its text, the audio of its first piece. `release` lets it go.
    """

    def __init__(
        self,
        turn: int,
        tts: TextToSpeech,
        playout: Playout,
        *,
        deadline_s: float,
        reached: Callable[[str], None],
        held: bool = False,
    ) -> None:
        """`reached` is told the names of the `TurnTimed` fields when their moment has come."""
        self.turn = turn
        self._tts = tts
        self._playout = playout
        self._deadline_s = deadline_s
        self._reached = reached
        self._generated: list[str] = []
        self._segments: list[_Segment] = []
        self._held = held
        self._room = asyncio.Semaphore(1 if held else 1 + AHEAD)
        self._begun_at: float | None = None
        self._spoken = False
        """Nothing more comes for playout."""
        self._read = False
        self._all_heard = asyncio.Event()

    @property
    def complete(self) -> bool:
        """True when no more text comes, heard or not."""
        return self._read

    async def speak(self, pieces: AsyncGenerator[str, None]) -> None:
        """Synthesise `pieces` and hand the audio to playout; returns when all of it is there.

        Raises:
            EngineError: from chat by way of `pieces`, or from text-to-speech. What came before it is played.
        """
        try:
            # The text is read at once, so that no chat connection stays open while the caller listens.
            async with (
                aclosing(Eager(self._noted(pieces))) as texts,
                aclosing(Eager(self._synthesised(texts))) as segments,
            ):
                async for segment in segments.items():
                    await self._emit(segment)
        finally:
            self._spoken = True
            for segment in self._segments:
                await segment.audio.aclose()
            self._check_heard()
        if not self._segments:
            raise EngineError("chat", "the answer was empty")
        if not any(segment.sent for segment in self._segments):
            raise EngineError(STAGE, "the answer had no audio")

    def release(self) -> None:
        """What was held back is played now, and the rest as it comes."""
        if not self._held:
            return
        self._held = False
        for segment in self._segments:
            if segment.sent:
                self._playout.play(segment.item_id, bytes(segment.sent))
                if segment.closed:
                    self._playout.finish(segment.item_id)
        for _ in range(AHEAD):
            self._room.release()

    def break_off(self) -> None:
        """Nothing more comes: the caller hears what there is."""
        for segment in self._segments:
            if not segment.closed:
                self._close(segment)

    @property
    def awaited(self) -> str:
        """The stage that the answer waits for."""
        return STAGE if any(not segment.complete for segment in self._segments) else "chat"

    @property
    def segments(self) -> int:
        """How many pieces were given to text-to-speech."""
        return len(self._segments)

    async def heard(self) -> None:
        """Wait until the caller has heard all that was given to playout."""
        await self._all_heard.wait()

    def push_mark(self, mark: PlayoutMark, now: float) -> bool:
        """Something happened in playout; True when it is the first frame of this response."""
        segment = next((s for s in self._segments if s.item_id == mark.item_id), None)
        if segment is None:
            return False
        if isinstance(mark, ItemFinished):
            segment.finished = True
            self._room.release()
            self._check_heard()
            return False
        if self._begun_at is not None:
            return False
        self._begun_at = now
        return True

    @property
    def being_heard(self) -> bool:
        """True from its first frame to its last, also where playout waits for synthesis."""
        return self._begun_at is not None and not self._all_heard.is_set()

    @property
    def text(self) -> str:
        """All text that was generated so far."""
        return " ".join(self._generated)

    def outcome(self) -> BotSaid | None:
        """What became of it, were it to end now; None when the caller heard no whole word of it."""
        heard: list[str] = []
        pcm = bytearray()
        for segment in self._segments:
            played_ms = self._playout.played_ms(segment.item_id)
            if segment.finished and segment.complete and segment.sent:
                heard.append(segment.text)
                pcm += segment.sent
            elif played_ms > 0:
                heard.append(heard_part(segment.text, played_ms, segment.total_ms))
                pcm += segment.sent[: 2 * int(played_ms * TELEPHONE_RATE_HZ / 1000)]
        heard_text = " ".join(filter(None, heard))
        if not heard_text:
            return None
        interrupted = heard_text != self.text or not self.complete
        return BotSaid(self.turn, self.text, heard_text, interrupted, bytes(pcm), self._begun_at)

    def forget(self) -> None:
        """It is over, and its outcome known: let go of the audio."""
        for segment in self._segments:
            segment.sent.clear()

    async def _noted(self, pieces: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        try:
            async with aclosing(pieces):
                async for text in pieces:
                    self._reached("first_sentence_at")
                    self._generated.append(text)
                    yield text
        finally:
            self._read = True

    async def _synthesised(self, texts: Eager[str]) -> AsyncGenerator[_Segment, None]:
        async with aclosing(texts.items()) as items:
            async for text in items:
                await self._room.acquire()
                item_id = f"t{self.turn}.s{len(self._segments) + 1}"
                segment = _Segment(item_id, text, Eager(self._audio(text)))
                self._segments.append(segment)
                yield segment

    async def _audio(self, text: str) -> AsyncGenerator[bytes, None]:
        resampler: StreamResampler | None = None
        length_ms = 0.0
        async with aclosing(within(self._tts.speak(text), STAGE, self._deadline_s)) as chunks:
            async for chunk in chunks:
                self._reached("first_tts_byte_at")
                resampler = resampler or StreamResampler(chunk.rate_hz, TELEPHONE_RATE_HZ)
                yield resampler.push(chunk.pcm)
                length_ms += bytes_to_ms(len(chunk.pcm), chunk.rate_hz)
                if length_ms > MAX_SEGMENT_MS:
                    logger.warning(
                        "text-to-speech went on for %.0f s on one sentence; cut off", length_ms / 1000
                    )
                    break
        if resampler:
            yield resampler.flush()

    async def _emit(self, segment: _Segment) -> None:
        try:
            async with aclosing(segment.audio.items()) as pieces:
                async for pcm in pieces:
                    self._play(segment, pcm)
        except EngineError:
            self._close(segment)  # the caller hears the part there is
            raise
        segment.complete = True
        self._close(segment)
        if not segment.sent:
            segment.finished = True
            self._room.release()

    def _play(self, segment: _Segment, pcm: bytes) -> None:
        if pcm:
            segment.sent += pcm
            if not self._held:
                self._playout.play(segment.item_id, pcm)

    def _close(self, segment: _Segment) -> None:
        segment.closed = True
        if segment.sent and not self._held:
            self._playout.finish(segment.item_id)

    def _check_heard(self) -> None:
        if self._spoken and all(segment.finished or not segment.sent for segment in self._segments):
            self._all_heard.set()
