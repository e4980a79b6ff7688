"""Composition root: builds engines, media and the connection to Asterisk, and owns the calls. Shell."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ari_app.ari import events
from ari_app.ari.client import AriClient
from ari_app.ari.ids import CALL_LENGTH, parse_object_id, server_tag
from ari_app.ari.instances import Instance, state_directory
from ari_app.ari.outcome import Ending, Outcome
from ari_app.ari.reconcile import Reconciler
from ari_app.brains import Brains, BuildBrains, build_brains
from ari_app.call import Call, CallSettings, Dial, Observer
from ari_app.config import Config
from ari_app.dialog.announcer import Announcer
from ari_app.errors import AriError, AriUnreachable, ConfigError
from ari_app.guard import is_number, refusal
from ari_app.health import Health
from ari_app.ledger import Ledger
from ari_app.logs import mask_number
from ari_app.record.files import seal_for
from ari_app.record.recorder import Recorder, RecorderSettings, recording_directory
from ari_app.record.retention import tidy_for_ever
from ari_app.rtp.endpoint import bind, own_address
from ari_app.rtp.sender import RtpSender

logger = logging.getLogger(__name__)

FIRST_CONNECTION_S = 30
BUDGET_CHECK_S = 5.0
"""Calls in progress may together last so much longer than DIAL_DAILY_MINUTES."""
STOPPING = "the application is stopping"
END_TIMEOUT_S = 5
"""For taking all calls down, when Asterisk hardly answers."""


class App:
    """One process's share of Asterisk: its Stasis application, its calls, its engines.

    Args:
        config: all settings.
        command: `serve` or `dial`; names the recordings, and decides whose application this is: the server has
            the configured name, any other process one of its own.
        build: makes the brains of its calls.
    """

    def __init__(self, config: Config, *, command: str, build: BuildBrains = build_brains) -> None:
        self._config = config
        self._build = build
        self._command = command
        self._is_server = command == "serve"
        suffix = "" if self._is_server else f"-{command}-{secrets.token_hex(4)}"
        self._app_name = config.ari_app + suffix
        self._tag = server_tag(self._app_name, config.ari_url)
        self._calls: dict[str, Call] = {}
        """By call id."""
        self._announcers: dict[str, Announcer] = {}
        self._callers: dict[str, Call] = {}
        """Inbound calls by the caller's channel id, which Asterisk chose."""
        self._tasks: set[asyncio.Task[object]] = set()
        self._draining = False
        self._client: AriClient
        self._rtp_host = ""
        self._sender = RtpSender()
        self._brains: Brains
        self._recorder_settings = RecorderSettings(
            system_message=config.system_message,
            seal=seal_for(config.recordings_key) if config.recordings_key else None,
            min_free_bytes=config.recordings_min_free_mb * 1_000_000,
        )

    # --- commands

    async def serve(self, *, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Answer calls until `stop` is set.

        Raises:
            AriError: refused at the start, or another process took the application over.
            SetupError, ConfigError: see their text.
        """
        async with self._running() as connection:
            await self._first(connection, self._registered())
            ready()
            await self._first(connection, stop.wait())
            await self._drain()

    async def dial(self, number: str, *, observer: Observer, hang_up: asyncio.Event) -> Ending:
        """Call `number`, hold the conversation until either side or `hang_up` ends it, and say how it ended.

        Raises:
            ConfigError: the number is not one, or may not be called.
            LimitReached: too many calls, or too many minutes.
            AriError: Asterisk is unreachable or refuses us.
        """
        if not is_number(number):
            raise ConfigError(
                f"'{number}' is not a number to call: use digits, * and #, with a + in front if needed."
            )
        rules = self._config.dial_rules
        if (reason := refusal(number, rules)) is not None:
            raise ConfigError(reason)
        ledger = Ledger(state_directory(), rules)
        limit_s = (
            self._config.ring_timeout + self._config.max_call_seconds + 60
        )  # Asterisk's own is 60 s later
        async with AsyncExitStack() as stack:
            stack.enter_context(ledger.call(secrets.token_hex(8), limit_s))
            connection = await stack.enter_async_context(self._running())
            await self._first(connection, self._registered())
            if hang_up.is_set():
                return Ending(Outcome.CANCELLED, "us", "hung up before it was dialed")
            dial = Dial(
                self._config.dial_endpoint.replace("{number}", number),
                self._config.caller_id,
                self._config.ring_timeout,
            )
            call = self._new_call(
                dial=dial, about={"direction": "outbound", "to": number}, observers=(observer,)
            )
            task = self._start(call)

            async def obey() -> None:
                await hang_up.wait()
                call.hang_up("hung up here")

            async def watch_budget() -> None:
                while (left_s := ledger.remaining_s()) > 0:  # noqa: ASYNC110 - other processes spend it too
                    await asyncio.sleep(min(left_s, BUDGET_CHECK_S))
                call.hang_up(f"the {rules.daily_minutes} minutes of DIAL_DAILY_MINUTES are used up")

            helpers = [asyncio.create_task(helper()) for helper in (obey, watch_budget)]
            try:
                await self._first(connection, asyncio.shield(task))
                return await task
            finally:
                for helper in helpers:
                    helper.cancel()

    # --- building and taking down

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Everything up; yields the task that keeps the connection to Asterisk."""
        config = self._config
        async with AsyncExitStack() as stack:
            if self._is_server and config.health_port:
                await stack.enter_async_context(Health(config.health_host, config.health_port, self._health))
            instance = stack.enter_context(
                Instance(state_directory(), self._tag, config.ari_url, self._app_name)
            )
            if self._is_server:
                stack.push_async_callback(_end, asyncio.create_task(self._tidy(), name="tidy"))
            self._rtp_host = await own_address(config.rtp_host, config.ari_url)
            bind(self._rtp_host, config.rtp_ports).close()  # a wrong address is found now, not by a caller
            self._brains = await self._build(config, stack)
            await stack.enter_async_context(self._sender)
            self._client = await stack.enter_async_context(
                AriClient(
                    *(config.ari_url, config.ari_username, config.ari_password, self._app_name),
                    self._on_event,
                    on_connected=Reconciler(instance, self._known_channels, self._calls.keys),
                    retry_first=self._is_server,
                )
            )
            connection = asyncio.create_task(self._client.run(), name="ari-connection")
            stack.push_async_callback(self._cancel_late, connection)
            stack.push_async_callback(self._end_calls)
            yield connection

    async def _registered(self) -> None:
        """Wait for the first registration: Asterisk may be starting beside us, but not for ever."""
        try:
            async with asyncio.timeout(FIRST_CONNECTION_S):
                await self._client.registered.wait()
        except TimeoutError:
            raise AriUnreachable(
                f"register at {self._config.ari_url} within {FIRST_CONNECTION_S} s",
                None,
                "start Asterisk, or correct ARI_URL",
            ) from None

    async def _end_calls(self) -> None:
        self._draining = True
        for call in self._calls.values():
            call.hang_up(STOPPING)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT_S):
                while self._tasks:  # who calls meanwhile is refused, which is a task too
                    await asyncio.wait(self._tasks)

    async def _cancel_late(self, connection: asyncio.Task[None]) -> None:
        await _end(connection, *self._tasks)

    async def _tidy(self) -> None:
        await tidy_for_ever(
            Path(self._config.recordings_dir),
            max_age_s=self._config.recordings_keep_days * 86400,
            max_bytes=self._config.recordings_max_mb * 1_000_000,
        )

    async def _drain(self) -> None:
        """Take no new calls, let the present ones finish, then say goodbye to those who are still there."""
        self._draining = True
        if self._tasks:
            drain_s = self._config.drain_seconds
            logger.info("stopping: %d calls have %d s to finish", len(self._calls), drain_s)
            await asyncio.wait(self._tasks, timeout=drain_s)
        goodbyes = [self._say_goodbye(call) for call in self._calls.values()]
        for fault in await asyncio.gather(*goodbyes, return_exceptions=True):
            if isinstance(fault, Exception):  # one call's fault must not cost the others their goodbye
                logger.error("a goodbye failed", exc_info=fault)

    async def _say_goodbye(self, call: Call) -> None:
        await self._announcers[call.call_id].say_goodbye()
        call.hang_up(STOPPING)

    def _health(self) -> Mapping[str, object]:
        registered = hasattr(self, "_client") and self._client.registered.is_set()
        return {
            "ready": registered and not self._draining,
            "registered": registered,
            "draining": self._draining,
            "calls": len(self._calls),
            "max_calls": self._config.max_calls,
        }

    async def _first(self, connection: asyncio.Task[None], wanted: Awaitable[object]) -> None:
        """Wait for `wanted`; if the connection to Asterisk ends for good before, raise why."""
        waiting = asyncio.ensure_future(wanted)
        try:
            await asyncio.wait({waiting, connection}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not waiting.done():
                waiting.cancel()
        if connection.done():
            connection.result()
        await waiting

    # --- calls

    def _new_call(
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
        announcer = Announcer(self._brains.make(), opening=self._brains.consent, goodbye=self._brains.goodbye)
        call = Call(
            call_id,
            ari=self._client.rest,
            sender=self._sender,
            brain=announcer,
            settings=CallSettings(
                tag=self._tag,
                rtp_host=self._rtp_host,
                rtp_ports=config.rtp_ports,
                max_call_s=config.max_call_seconds,
                handover_keys=config.handover_keys,
            ),
            caller_channel_id=caller_channel_id,
            dial=dial,
            open_recorder=partial(self._open_recorder, about) if config.save_recordings else None,
            observers=observers,
        )
        self._calls[call.call_id] = call
        self._announcers[call.call_id] = announcer
        self._own(asyncio.create_task(self._warm_engines(), name=f"warm-{call.call_id}"))
        if caller_channel_id is not None:
            self._callers[caller_channel_id] = call
        return call

    def _start(self, call: Call) -> asyncio.Task[Ending]:
        task = asyncio.create_task(call.run(), name=f"call-{call.call_id}")
        self._own(task)

        def forget(_: object) -> None:
            del self._calls[call.call_id], self._announcers[call.call_id]
            if self._callers.get(call.far_id) is call:
                del self._callers[call.far_id]

        task.add_done_callback(forget)
        return task

    def _own(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s failed", task.get_name(), exc_info=error)

    def _open_recorder(self, about: Mapping[str, object], started_at: float) -> Recorder:
        started = time.strftime("%Y%m%d-%H%M%S")
        root = Path(self._config.recordings_dir)
        directory = recording_directory(root, self._command, started, str(about["call"]))
        return Recorder(directory, settings=self._recorder_settings, started_at=started_at, about=about)

    def _known_channels(self) -> set[str]:
        return {channel_id for call in self._calls.values() for channel_id in call.known_channels}

    # --- events

    def _on_event(self, event: events.Event) -> None:
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
        return self._calls.get(ours.call_id) if ours else self._callers.get(event.channel_id)

    async def _warm_engines(self) -> None:
        """Open connections while the call is set up, so that the caller's first turn does not pay for them."""
        for result in await asyncio.gather(*(warm() for warm in self._brains.warm), return_exceptions=True):
            if isinstance(result, Exception):  # the turn that needs the engine will say so where it matters
                logger.debug("not warmed: %s", result)

    def _on_stranger(self, event: events.StasisStart) -> None:
        """A channel entered our application: a caller, or a late object of a call that is over."""
        channel = event.channel
        if parse_object_id(channel.id) is not None:
            self._own(asyncio.create_task(self._try(self._client.rest.hangup(channel.id))))
        elif self._draining or len(self._calls) >= self._config.max_calls:
            logger.warning(
                "call from %s refused: %s", mask_number(channel.caller_number), self._why_refused()
            )
            self._own(asyncio.create_task(self._try(self._client.rest.hand_back(channel.id, "busy"))))
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
            call = self._new_call(caller_channel_id=channel.id, about=about)
            number = channel.caller_number if self._config.debug else mask_number(channel.caller_number)
            logger.info(
                "call %s from %s to %.64r, channel %s, SIP Call-ID %s",
                *(call.call_id, number or "unknown", called, channel.id, channel.protocol_id),
            )
            self._start(call)

    def _why_refused(self) -> str:
        return (
            "the application is stopping"
            if self._draining
            else f"all {self._config.max_calls} lines are taken"
        )

    async def _try(self, request: Awaitable[None]) -> None:
        try:
            await request
        except AriError as error:
            logger.warning("%s", error)


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
