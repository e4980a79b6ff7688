"""Engines that stand in for each other: retry, breaker and fallback over any stage. Shell without a socket.

A request goes to the first engine in service. What fails before the caller could hear anything of it is tried again, at
once and once, when it may have been a moment's trouble, and then at the next engine; what fails later is told to the
caller. An engine behind which another stands must be quick: see `FIRST_S`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Generic, TypeVar

from ari_app.dialog.breaker import Breaker
from ari_app.dialog.ports import ChatModel, Message, PcmChunk, SpeechToText, TextToSpeech, Transcript
from ari_app.dialog.streams import within
from ari_app.errors import EngineError, EngineRejected, EngineTimeout, EngineUnavailable, EngineUnreachable

logger = logging.getLogger(__name__)

E = TypeVar("E")
T = TypeVar("T")

FIRST_S = 2.0
"""For the first piece of an answer while there is another engine to turn to."""
ALONE_S = 4.5
"""For the first piece where there is none, and for all later ones: the pipeline gives up after 5 s."""
RETRY_WITHIN_S = 1.0
"""A failure that took longer is not tried again at the same engine, nor is one whose server wants a longer pause."""
LATE_S = 2.0
"""A request that its caller gave up after so long counts as failed: nobody waits for ever for a server that hangs."""


class Engine(Generic[E]):
    """One of a stage's."""

    def __init__(self, name: str, engine: E) -> None:
        """`name`: for logs and metrics: `primary` or `fallback`."""
        self.name = name
        self.engine = engine
        self.breaker = Breaker()
        self.requests = 0


class Engines(Generic[E]):
    """All engines of one stage, in the order in which they are asked: a primary one, and perhaps a fallback.

    Args:
        stage: as in `EngineError`.
        alone_s: for the first piece of the last engine's answer.
    """

    def __init__(self, stage: str, *engines: E, alone_s: float = ALONE_S) -> None:
        self.stage = stage
        self.all = [
            Engine(name, engine) for name, engine in zip(("primary", "fallback"), engines, strict=False)
        ]
        self._alone_s = alone_s

    async def ask(
        self, request: Callable[[E], Awaitable[T]], *, regardless: bool = False, whole: bool = True
    ) -> tuple[T, Engine[E]]:
        """The first answer that can be had, and whose it is.

        Args:
            regardless: as a last resort ask those that are out of service, too.
            whole: that is all; else the rest is to come, and then `succeeded` or `failed` is to be called.

        Raises:
            EngineUnavailable: all are out of service, and none was asked.
            EngineError: the last failure.
        """
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        failure: EngineError | None = None
        resting: list[Engine[E]] = []
        for engine in self.all:
            if not engine.breaker.allows(loop.time()):
                resting.append(engine)
                continue
            try:
                return await self._ask(engine, request, whole), engine
            except EngineError as error:
                failure = error
            pause_s = _pause_s(failure)
            if pause_s is None or loop.time() + pause_s - began_at > RETRY_WITHIN_S:
                continue
            await asyncio.sleep(pause_s)
            if engine.breaker.allows(loop.time()):
                try:
                    return await self._ask(engine, request, whole), engine
                except EngineError as error:
                    failure = error
        for engine in resting if regardless else ():
            try:
                return await self._ask(engine, request, whole), engine
            except EngineError as error:
                failure = error
        raise failure or self._unavailable(loop.time())

    async def _ask(self, engine: Engine[E], request: Callable[[E], Awaitable[T]], whole: bool) -> T:
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        others = self.all[self.all.index(engine) + 1 :]
        deadline_s = FIRST_S if any(not other.breaker.is_open for other in others) else self._alone_s
        engine.requests += 1
        try:
            async with asyncio.timeout(deadline_s):
                answer = await request(engine.engine)
        except TimeoutError:
            error = EngineTimeout(self.stage, f"no answer within {deadline_s:g} s")
            self.failed(engine, error)
            raise error from None
        except EngineError as error:
            self.failed(engine, error)
            raise
        except BaseException:  # whoever asked does not want to know any more
            late_s = loop.time() - sent_at
            if late_s > LATE_S:
                self.failed(engine, EngineTimeout(self.stage, f"no answer within {late_s:.1f} s"))
            else:
                engine.breaker.left()
            raise
        if whole:
            self.succeeded(engine)
        else:
            engine.breaker.began()
        return answer

    def succeeded(self, engine: Engine[E]) -> None:
        """Its answer came to its end."""
        if engine.breaker.succeeded():
            logger.info("%s: the %s engine works again", self.stage, engine.name)

    def failed(self, engine: Engine[E], error: EngineError) -> None:
        """Its answer broke."""
        now = asyncio.get_running_loop().time()
        if engine.breaker.failed(error, now):
            logger.warning(
                "%s: the %s engine is out of service, and is tried again every few seconds: %s",
                *(self.stage, engine.name, error.message),
            )

    def _unavailable(self, now: float) -> EngineUnavailable:
        reasons = [
            f"the {engine.name} engine failed {engine.breaker.failures} times in a row ({engine.breaker.why}) and is "
            f"tried again in {engine.breaker.retry_in_s(now):.0f} s"
            for engine in self.all
        ]
        return EngineUnavailable(self.stage, "; ".join(reasons))

    # --- streams -------------------------------------------------------------------------------------

    async def stream(
        self, begin: Callable[[E], AsyncIterator[T]], *, may_be_empty: bool = False
    ) -> AsyncGenerator[T, None]:
        """The pieces of the first answer whose first piece can be had.

        Raises:
            EngineError: before or between pieces; also when there are none, unless that `may_be`.
        """

        async def first(engine: E) -> tuple[AsyncIterator[T], list[T]]:
            source = begin(engine)
            try:
                return source, [await anext(source)]
            except StopAsyncIteration:
                if may_be_empty:
                    return source, []
                raise EngineError(self.stage, "the answer was empty") from None
            except BaseException:
                await _close(source)
                raise

        (source, pieces), engine = await self.ask(first, whole=False)
        try:
            for piece in pieces:
                yield piece
            async with aclosing(within(source, self.stage, ALONE_S)) as rest:
                async for piece in rest:
                    yield piece
            self.succeeded(engine)
        except EngineError as error:
            self.failed(engine, error)
            raise
        finally:
            await _close(source)


async def _close(source: AsyncIterator[T]) -> None:
    if isinstance(source, AsyncGenerator):
        await source.aclose()


def _pause_s(error: EngineError) -> float | None:
    """Before the same engine is asked again; None when that is no use."""
    match error:
        case EngineRejected(permanent=True):
            return None
        case EngineRejected(status=429):
            return error.retry_after_s
        case EngineRejected(status=int(status)) if status >= 500:
            return 0.0
        case EngineUnreachable():
            return 0.0
    return None


# --- the three stages --------------------------------------------------------------------------------


class AnySpeechToText:
    """Implements `SpeechToText`."""

    def __init__(self, *engines: SpeechToText) -> None:
        self.engines = Engines("speech-to-text", *engines)

    async def transcribe(self, pcm: bytes, rate_hz: int) -> Transcript:
        """See `SpeechToText`.

        Raises:
            EngineError: no engine has a transcript.
        """
        transcript, _ = await self.engines.ask(lambda engine: engine.transcribe(pcm, rate_hz))
        return transcript


class AnyChat:
    """Implements `ChatModel`."""

    def __init__(self, *engines: ChatModel) -> None:
        self.engines = Engines("chat", *engines)

    def reply(self, messages: Sequence[Message]) -> AsyncGenerator[str, None]:
        """See `ChatModel`."""
        return self.engines.stream(lambda engine: engine.reply(messages))


class AnyTextToSpeech:
    """Implements `TextToSpeech`."""

    def __init__(self, *engines: TextToSpeech) -> None:
        self.engines = Engines("text-to-speech", *engines)

    def speak(self, text: str) -> AsyncGenerator[PcmChunk, None]:
        """See `TextToSpeech`."""
        speakable = any(character.isalnum() for character in text)
        return self.engines.stream(lambda engine: engine.speak(text), may_be_empty=not speakable)
