"""The calls of one process: how they begin, what can be done to them, and who owns their tasks. Shell."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ari_app.ari import events
from ari_app.ari.ids import CALL_LENGTH, parse_object_id
from ari_app.ari.outcome import Ending
from ari_app.ari.rest import AriRest
from ari_app.brains import Brains
from ari_app.call import Call, CallSettings, Dial
from ari_app.config import Config
from ari_app.dialog.announcer import Announcer
from ari_app.errors import AriError, LimitReached, NoSuchCall
from ari_app.happenings import Observer
from ari_app.load import Load
from ari_app.logs import mask_number
from ari_app.outbound import Outbound
from ari_app.record.recorder import Recorder, RecorderSettings, recording_directory
from ari_app.record.seal import seal_for
from ari_app.rtp.sender import RtpSender

logger = logging.getLogger(__name__)

STOPPING = "the application is stopping"
END_TIMEOUT_S = 5
"""For taking all calls down, when Asterisk hardly answers."""
WRITE_TIMEOUT_S = 5
"""For what is left to write of recordings, when the disk hardly answers."""


class Watcher(Protocol):
    """Sees every call of the process."""

    def begin(self, call: Call, about: Mapping[str, object]) -> Observer:
        """A call begins; the observer is told of what happens in it."""
        ...

    def refused(self, why: str) -> None:
        """A caller was not taken: `busy`, `overloaded` or `stopping`."""
        ...


@dataclass(frozen=True, slots=True)
class Held:
    """A call that goes on."""

    call: Call
    announcer: Announcer


class Calls:
    """Answers callers, places calls, and takes them all down.

    Args:
        config: all settings.
        command: names the recordings.
        tag: names this instance in object ids.
        load: no call is taken while it is too high.
        watchers: see every call.

    `attach` comes before the first event.
    """

    def __init__(
        self,
        config: Config,
        *,
        command: str,
        tag: str,
        load: Load,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self._config = config
        self._load = load
        self._command = command
        self._tag = tag
        self._watchers = watchers
        self._held: dict[str, Held] = {}
        """By call id."""
        self._callers: dict[str, Call] = {}
        """Inbound calls by the caller's channel id, which Asterisk chose."""
        self._tasks: set[asyncio.Task[object]] = set()
        self.draining = False
        self.outbound = Outbound(config)
        self._recorder_settings = RecorderSettings(
            system_message=config.system_message,
            seal=seal_for(config.recordings_key) if config.recordings_key else None,
            min_free_bytes=config.recordings_min_free_mb * 1_000_000,
        )
        self._ari: AriRest
        self.brains: Brains
        self._sender: RtpSender
        self._rtp_host = ""

    def attach(self, ari: AriRest, brains: Brains, sender: RtpSender, rtp_host: str) -> None:
        """What calls are made of."""
        self._ari, self.brains, self._sender, self._rtp_host = ari, brains, sender, rtp_host

    def __len__(self) -> int:
        return len(self._held)

    @property
    def living(self) -> list[str]:
        """Ids of the calls that go on."""
        return list(self._held)

    def known_channels(self) -> set[str]:
        """Ids of the channels that calls know to exist."""
        return {channel_id for held in self._held.values() for channel_id in held.call.known_channels}

    @property
    def engines(self) -> dict[str, dict[str, bool]]:
        """By stage, and by which of its engines: whether it is in service."""
        stages = self.brains.engines if hasattr(self, "brains") else ()
        return {
            stage.stage: {engine.name: not engine.breaker.is_open for engine in stage.all} for stage in stages
        }

    # --- callers -------------------------------------------------------------------------------------

    def on_event(self, event: events.Event) -> None:
        """An event of Asterisk. Never blocks."""
        call = self._call_of(event)
        if call is not None:
            call.push_event(event)
            if isinstance(event, events.StasisEnd):
                # The dialplan may send the caller here again: that is a new call, while this one still ends.
                self._callers.pop(event.channel_id, None)
        elif isinstance(event, events.StasisStart):
            self._on_stranger(event)

    def _call_of(self, event: events.Event) -> Call | None:
        if isinstance(event, events.ApplicationReplaced | events.UnknownEvent):
            return None
        ours = parse_object_id(event.channel_id)
        if ours is None:
            return self._callers.get(event.channel_id)
        return self._held[ours.call_id].call if ours.call_id in self._held else None

    def _on_stranger(self, event: events.StasisStart) -> None:
        """A channel entered our application: a caller, or a late object of a call that is over."""
        channel = event.channel
        if parse_object_id(channel.id) is not None:
            self.own(asyncio.create_task(self._try(self._ari.hangup(channel.id))))
        elif (refusal := self._refusal()) is not None:
            word, why = refusal
            logger.warning("call from %.64s refused: %s", mask_number(channel.caller_number), why)
            for watcher in self._watchers:
                watcher.refused(word)
            self.own(asyncio.create_task(self._try(self._ari.hand_back(channel.id, "busy"))))
        else:
            # The dialplan says Stasis(ari_app,inbound,NUMBER CALLED), which is ours and no secret.
            called = event.args[1] if len(event.args) > 1 else "unknown"
            about = {
                "direction": "inbound",
                "from": channel.caller_number,
                "to": called,
                "channel": channel.id,
                "sip_call_id": channel.protocol_id,
            }
            call = self.new(caller_channel_id=channel.id, about=about)
            number, name = channel.caller_number, channel.name
            if not self._config.debug:
                number = mask_number(number)
                # A phone's account is often its number; what follows it is enough to find the channel.
                name = f"{name.partition('/')[0]}/…-{name.rpartition('-')[2]}"
            logger.info(
                "call %s from %.64s to %.64r, channel %s (%.80s), SIP Call-ID %.128s",
                *(call.call_id, number or "unknown", called, channel.id, name, channel.protocol_id),
            )
            self.start(call)

    def _refusal(self) -> tuple[str, str] | None:
        """Why no call can be taken now, in a word and in a clause."""
        config = self._config
        lines = config.max_calls
        if config.rtp_ports is not None:
            lines = min(lines, config.rtp_ports[1] - config.rtp_ports[0] + 1)
        if self.draining:
            return "stopping", STOPPING
        if len(self._held) >= lines:
            return "busy", f"all {lines} lines are taken (MAX_CALLS, RTP_PORTS)"
        if self._load.too_high:
            return "overloaded", f"the machine is too busy: {self._load.lag_ms:.0f} ms late (MAX_LAG_MS)"
        return None

    async def _try(self, request: Awaitable[None]) -> None:
        try:
            await request
        except AriError as error:
            logger.warning("%s", error)

    # --- their beginning -----------------------------------------------------------------------------

    def new(
        self,
        *,
        caller_channel_id: str | None = None,
        dial: Dial | None = None,
        about: Mapping[str, object],
        observers: Sequence[Observer] = (),
    ) -> Call:
        """A call; `about` is what its recording begins with."""
        config = self._config
        call_id = secrets.token_hex(CALL_LENGTH // 2)
        about = {"call": call_id, "mode": config.mode, **about}
        announcer = Announcer(self.brains.make(), self.brains.script)
        call = Call(
            call_id,
            ari=self._ari,
            sender=self._sender,
            brain=announcer,
            settings=CallSettings(
                tag=self._tag,
                rtp_host=self._rtp_host,
                rtp_ports=config.rtp_ports,
                max_call_s=config.max_call_seconds,
                no_audio_s=config.no_audio_seconds,
                on_failure=config.on_failure,
                handover_keys=config.handover_keys,
            ),
            caller_channel_id=caller_channel_id,
            dial=dial,
            open_recorder=partial(self._open_recorder, about) if config.save_recordings else None,
        )
        call.on_hold = announcer.hold
        call.observers = (*(watcher.begin(call, about) for watcher in self._watchers), *observers)
        self._held[call_id] = Held(call, announcer)
        self.own(asyncio.create_task(self._warm_engines(), name=f"warm-{call_id}"))
        if caller_channel_id is not None:
            self._callers[caller_channel_id] = call
        return call

    def _open_recorder(
        self, about: Mapping[str, object], started_at: float, on_failed: Callable[[str], None]
    ) -> Recorder:
        started = time.strftime("%Y%m%d-%H%M%S")
        root = Path(self._config.recordings_dir)
        directory = recording_directory(root, self._command, started, str(about["call"]))
        return Recorder(
            directory,
            settings=self._recorder_settings,
            started_at=started_at,
            about=about,
            on_failed=on_failed,
        )

    async def _warm_engines(self) -> None:
        """Open connections while the call is set up, so that the caller's first turn does not pay for them."""
        for result in await asyncio.gather(*(warm() for warm in self.brains.warm), return_exceptions=True):
            if isinstance(result, Exception):  # the turn that needs the engine will say so where it matters
                logger.debug("not warmed: %s", result)

    def start(self, call: Call) -> asyncio.Task[Ending]:
        """Hold the call to its end."""
        task = asyncio.create_task(call.run(), name=f"call-{call.call_id}")
        self.own(task)

        def forget(_: object) -> None:
            del self._held[call.call_id]
            if self._callers.get(call.far_id) is call:
                del self._callers[call.far_id]

        task.add_done_callback(forget)
        return task

    def own(self, task: asyncio.Task[Any]) -> None:
        """Have it ended with the calls, and its fault logged."""
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s failed", task.get_name(), exc_info=error)

    def find(self, call_id: str) -> Held:
        """A call that goes on.

        Raises:
            NoSuchCall: it does not.
        """
        try:
            return self._held[call_id]
        except KeyError:
            raise NoSuchCall(f"there is no call {call_id}") from None

    # --- outbound ------------------------------------------------------------------------------------

    async def hold(self, call: Call) -> Ending:
        """Start an outbound call and hold it to its end, within the budget."""
        budget = asyncio.create_task(self.outbound.watch_budget(call), name=f"budget-{call.call_id}")
        task = self.start(call)
        try:
            return await asyncio.shield(task)
        finally:
            budget.cancel()

    def call_out(self, number: str, dial: Dial, observers: Sequence[Observer] = ()) -> Call:
        """A call to `number`, for `hold`."""
        call = self.new(dial=dial, about={"direction": "outbound", "to": number}, observers=observers)
        shown = number if self._config.debug else mask_number(number)
        logger.info("call %s to %s, channel %s", call.call_id, shown, call.far_id)
        return call

    async def place(self, number: str) -> str:
        """Call `number` in the background; returns the call's id.

        Raises:
            ConfigError, LimitReached, SetupError: see `Outbound.allowed`; all lines may be taken, too.
        """

        def require_line() -> None:
            if (refusal := self._refusal()) is not None:
                raise LimitReached(f"{refusal[1]}: wait, or raise the limit.")

        require_line()
        async with contextlib.AsyncExitStack() as stack:
            dial = await stack.enter_async_context(self.outbound.allowed(number))
            require_line()  # others may have come meanwhile
            call = self.call_out(number, dial)
            ledger = stack.pop_all()

        async def hold() -> None:
            async with ledger:
                await self.hold(call)

        self.own(asyncio.create_task(hold(), name=f"outbound-{call.call_id}"))
        return call.call_id

    # --- the end -------------------------------------------------------------------------------------

    async def drain(self, drain_s: float) -> None:
        """Take no new calls, let the present ones finish, then say goodbye to those who are still there."""
        self.draining = True
        if self._tasks:
            logger.info("stopping: %d calls have %d s to finish", len(self._held), drain_s)
            await asyncio.wait(self._tasks, timeout=drain_s)
        goodbyes = [self._say_goodbye(held) for held in self._held.values()]
        for fault in await asyncio.gather(*goodbyes, return_exceptions=True):
            if isinstance(fault, Exception):  # one call's fault must not cost the others their goodbye
                logger.error("a goodbye failed", exc_info=fault)

    async def _say_goodbye(self, held: Held) -> None:
        await held.announcer.say_goodbye()
        held.call.hang_up(STOPPING)

    async def end_all(self) -> None:
        """Hang up, and wait a little for Asterisk to agree."""
        self.draining = True
        for held in self._held.values():
            held.call.hang_up(STOPPING)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT_S):
                while self._tasks:  # who calls meanwhile is refused, which is a task too
                    await asyncio.wait(self._tasks)

    async def write_all(self) -> None:
        """Let what was recorded reach the disk, as long as that takes no longer than it should."""
        writer = self._recorder_settings.writer
        if not await asyncio.to_thread(writer.wait, WRITE_TIMEOUT_S):
            logger.error("%d recordings are left unfinished: the disk does not answer", len(writer))

    async def cancel_all(self) -> None:
        """Nothing of a call is left."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
