"""The Realtime brain: holds a call over sessions that come and go. Shell.

FIRST ──open──> IN SESSION ──lost──> gap: try again, quicker than the caller notices, for `OUTAGE_S`
                    └──old──> a new session is opened beside it and takes over at a quiet moment
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Callable
from contextlib import aclosing

from ari_app.dialog.ports import EngineFailed, Fact, Playout, PlayoutMark
from ari_app.errors import EngineError, EngineUnavailable, EngineUnreachable
from ari_app.openai_api.realtime_conversation import RealtimeConversation
from ari_app.openai_api.realtime_patience import Manners
from ari_app.openai_api.realtime_protocol import STAGE, Event, object_of, text_of
from ari_app.openai_api.realtime_servers import RealtimeServers
from ari_app.openai_api.realtime_session import RealtimeSession
from ari_app.openai_api.realtime_usage import Meter
from ari_app.texts import one_line

logger = logging.getLogger(__name__)

OUTAGE_S = 12.0
"""So long it tries to get a session back while the caller waits."""
BACKOFF_S = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Waits between two tries, with jitter; the last one repeats."""
RECYCLE_AT = 5 / 6
"""Of a session's life: from there on it is changed at a quiet moment; OpenAI ends it after 60 minutes."""
SHORT_LIFE_S = 5.0
MAX_SHORT_LIVES = 4
"""Sessions in a row that break at once: the next would too."""
MAX_LOSSES = 9
LOSSES_S = 300.0
"""So many sessions lost within so long: each new one costs, and the caller hears every break."""
MIN_LIFE_S = 3.0
MAX_KINDS = 20
MAX_KIND_CHARS = 60
QUIET_POLL_S = 0.1
RECYCLE_RETRY_S = 30.0


class RealtimeBrain:
    """Implements `Brain`."""

    def __init__(self, servers: RealtimeServers, manners: Manners) -> None:
        self._servers = servers
        self._manners = manners
        self._meter = Meter()
        self._conversation: RealtimeConversation | None = None
        self._session: RealtimeSession | None = None
        self._had_session = self._blamed = False
        self._failure: EngineError | None = None
        self._task: asyncio.Task[None] | None = None
        self._recycling: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        """Sessions that are over."""
        self._losses: deque[float] = deque(maxlen=MAX_LOSSES)
        self._remarks: Counter[str] = Counter()

    # --- Brain

    def prepare(self) -> None:
        """Connect while the phone still rings."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="realtime")

    async def start(self, playout: Playout, report: Callable[[Fact], None]) -> None:
        def judge(fact: Fact) -> None:
            if isinstance(fact, EngineFailed) and self._session:
                self._blamed = True
                error = EngineError(fact.stage, fact.message, permanent=fact.permanent)
                self._servers.failed(self._session, error)
            report(fact)

        self._conversation = RealtimeConversation(
            self._servers.settings, self._manners, playout, judge, self._remark, self._meter
        )
        if self._failure and not self._failure.permanent:  # while it rang; it may work now
            self._task = self._failure = None
        self.prepare()
        if self._session:
            self._take(self._session, self._conversation)
        elif self._failure:
            self._give_up(self._failure)
        else:
            self._conversation.session_lost(asyncio.get_running_loop().time())

    def push_audio(self, frame: bytes, now: float) -> None:
        if self._conversation:
            self._conversation.push_audio(frame, now)

    def push_sent(self, frame: bytes) -> None:
        if self._conversation:
            self._conversation.detector.push_sent(frame)

    def push_mark(self, mark: PlayoutMark, now: float) -> None:
        if self._conversation:
            self._conversation.push_mark(mark, now)

    def note_said(self, text: str) -> None:
        if self._conversation:
            self._conversation.note_said(text)

    async def close(self) -> None:
        tasks = [task for task in (self._task, self._recycling, *self._closing) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session:
            await self._session.close()
            self._session = None
        for kind, count in self._remarks.items():
            if count > 1:
                logger.info("realtime: %d remarks of the kind '%s'", count, kind)
        self._remarks.clear()
        if self._meter.bill.close():
            logger.info("%s", self._meter.bill)

    def _remark(self, kind: str, words: str) -> None:
        """The first of each kind is worth a line."""
        kind = one_line(kind, MAX_KIND_CHARS)
        if len(self._remarks) < MAX_KINDS or kind in self._remarks:
            self._remarks[kind] += 1
        if self._remarks[kind] == 1:
            logger.warning("%s", words)

    # --- sessions

    async def _run(self) -> None:
        """The task of the call, and the boundary that no fault of ours crosses."""
        loop = asyncio.get_running_loop()
        short_lives = 0
        try:
            while self._conversation is None or not self._conversation.giving_up:
                self._session = await self._open_in_time()
                opened_at = loop.time()
                if self._conversation:
                    self._take(self._session, self._conversation)
                session = self._session
                await self._read()
                now = loop.time()
                if session.ended and now - opened_at < SHORT_LIFE_S:
                    self._servers.failed(session, session.ended)
                short_lives = short_lives + 1 if now - opened_at < SHORT_LIFE_S else 0
                if short_lives == MAX_SHORT_LIVES:
                    raise EngineUnreachable(STAGE, f"{short_lives} sessions in a row broke at once")
                self._losses.append(now)
                if len(self._losses) == MAX_LOSSES and now - self._losses[0] < LOSSES_S:
                    raise EngineUnreachable(STAGE, f"{MAX_LOSSES} sessions broke within {LOSSES_S:g} s")
                if short_lives:
                    await asyncio.sleep(BACKOFF_S[short_lives - 1])
        except EngineError as error:
            self._give_up(error)
        except Exception:
            logger.exception("the realtime brain failed")
            self._give_up(EngineError(STAGE, "internal error"))

    async def _open_in_time(self) -> RealtimeSession:
        """A session within `OUTAGE_S`.

        Raises:
            EngineError: the last reason why there is none.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + OUTAGE_S
        tries = 0
        while True:
            try:
                async with asyncio.timeout_at(until):
                    # A call that had a session, or saw it fail itself, goes on trying; another does not begin to.
                    return await self._servers.open(regardless=self._had_session or tries > 0)
            except TimeoutError:
                raise EngineUnreachable(STAGE, f"no session within {OUTAGE_S:g} s") from None
            except EngineError as error:
                wait_s = BACKOFF_S[min(tries, len(BACKOFF_S) - 1)] * random.uniform(0.75, 1.25)
                hopeless = error.permanent or isinstance(error, EngineUnavailable)
                if hopeless or loop.time() + wait_s > until:
                    raise
                logger.warning("%s; trying again", error)
                tries += 1
                await asyncio.sleep(wait_s)

    def _take(self, session: RealtimeSession, conversation: RealtimeConversation) -> None:
        """From now on the call is held over this session."""
        for event in conversation.history_events():
            session.send(event)
        self._session, self._had_session = session, True
        self._meter.use(*session.paid)
        conversation.session_begun(session, asyncio.get_running_loop().time())
        self._recycling = asyncio.create_task(self._recycle(session, conversation), name="realtime-recycle")

    async def _read(self) -> None:
        """Hand on the events of the session in force, until there is none.

        Raises:
            EngineError: the next session would end in the same way.
        """
        loop = asyncio.get_running_loop()
        ended: EngineError | None = None
        while session := self._session:
            async with aclosing(session.events()) as events:
                async for event in events:
                    if session is not self._session:
                        break
                    if self._conversation:
                        self._push(self._conversation, event, loop.time())
            if session is self._session:
                self._session, ended = None, session.ended
                logger.warning("%s", ended)
                if self._recycling:
                    self._recycling.cancel()
                if self._conversation:
                    self._conversation.session_lost(loop.time())
            self._leave(session)
        if ended and ended.permanent:
            raise ended

    def _push(self, conversation: RealtimeConversation, event: Event, now: float) -> None:
        self._blamed = False
        try:
            conversation.push_event(event, now)
            if self._session and not self._blamed and _is_whole_answer(event):
                self._servers.worked(self._session)
        except Exception:  # one event must not cost the call
            self._remark("fault", f"an event of type {text_of(event, 'type'):.60} could not be handled")
            logger.debug("the fault", exc_info=True)

    def _leave(self, session: RealtimeSession) -> None:
        """Close a session without waiting for its server."""
        task = asyncio.create_task(session.close(), name="realtime-leave")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _recycle(self, old: RealtimeSession, conversation: RealtimeConversation) -> None:
        """Change the session at a quiet moment before the server ends it."""
        wait_s = max(MIN_LIFE_S, old.lifetime_s * RECYCLE_AT)
        while True:
            await asyncio.sleep(wait_s)
            wait_s = QUIET_POLL_S
            if not conversation.quiet:
                continue
            try:
                new = await self._servers.open()
            except EngineError as error:
                logger.warning("%s; the old session goes on", error)
                wait_s = RECYCLE_RETRY_S
                continue
            if conversation.quiet and self._session is old:
                logger.info("the session is nearly over: another takes its place")
                self._take(new, conversation)
                old.abandon("another session took its place")
                return
            await new.close()

    def _give_up(self, error: EngineError) -> None:
        self._failure = error
        if self._conversation:
            self._conversation.failed(error, asyncio.get_running_loop().time(), final=True)


def _is_whole_answer(event: Event) -> bool:
    completed = text_of(object_of(event, "response"), "status") == "completed"
    return completed and text_of(event, "type") == "response.done"
