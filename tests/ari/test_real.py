"""The call flow, the client and the sweep against a real Asterisk: the events and orders that it really produces."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from ari_app.ari.callflow import CallFlow, State
from ari_app.ari.client import AriClient
from ari_app.ari.events import Event, StasisStart
from ari_app.ari.facts import (
    Answer,
    CallerArrived,
    Command,
    CreateBridge,
    CreateMedia,
    DeleteBridge,
    DialWanted,
    Fact,
    Finished,
    HandBack,
    HandBackWanted,
    HangUpFar,
    HangUpMedia,
    HangupWanted,
    Join,
    Originate,
    StepDone,
    StepFailed,
    fact_of,
)
from ari_app.ari.ids import Kind, object_id, server_tag
from ari_app.ari.instances import Instance
from ari_app.ari.outcome import Ending, Outcome
from ari_app.ari.reconcile import Reconciler
from ari_app.ari.rest import AriRest
from ari_app.demo.asterisk import AsteriskSettings, PrivateAsterisk
from ari_app.demo.asterisk_prefix import fetch
from ari_app.errors import AriError, AriNotFound, AriUnauthorized
from tests.fakes.asterisk import until

DEAD_PORT = 9
"""Nobody speaks SIP there."""


class MiniCall:
    """The least that carries a flow's commands out."""

    def __init__(self, rest: AriRest, tag: str, *, far_id: str = "", endpoint: str = "") -> None:
        self.flow = CallFlow()
        self.rest = rest
        self.outbound = not far_id
        self.endpoint = endpoint
        call_id = secrets.token_hex(6)
        self.media_id = object_id(tag, call_id, Kind.MEDIA)
        self.bridge_id = object_id(tag, call_id, Kind.BRIDGE)
        self.far_id = far_id or object_id(tag, call_id, Kind.CALLEE)
        self.ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self.tasks: set[asyncio.Task[None]] = set()

    def on_event(self, event: Event) -> None:
        fact = fact_of(event, far_id=self.far_id, media_id=self.media_id, outbound=self.outbound)
        if fact is not None:
            self.push(fact)

    def push(self, fact: Fact) -> None:
        for command in self.flow.push(fact):
            if isinstance(command, Finished):
                self.ending.set_result(command.ending)
                continue
            task = asyncio.create_task(self.carry_out(command))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def carry_out(self, command: Command) -> None:
        assert not isinstance(command, Finished)
        try:
            await self.request(command)
        except AriError as error:
            self.push(StepFailed(command, error))
        else:
            self.push(StepDone(command))

    async def request(self, command: Command) -> None:
        match command:
            case Originate():
                await self.rest.originate(self.far_id, self.endpoint, timeout_s=5)
            case CreateBridge():
                await self.rest.create_bridge(self.bridge_id)
            case CreateMedia():
                await self.rest.external_media(self.media_id, "127.0.0.1:4000")
            case Answer():
                await self.rest.answer(self.far_id)
            case Join():
                await self.rest.add_channels(self.bridge_id, [self.far_id, self.media_id])
            case HangUpFar():
                await self.rest.hangup(self.far_id, command.reason)
            case HandBack():
                await self.rest.hand_back(self.far_id, command.result)
            case HangUpMedia():
                await self.rest.hangup(self.media_id)
            case DeleteBridge():
                await self.rest.delete_bridge(self.bridge_id)


class Bench:
    """One registered client; its events go to the calls given to it."""

    def __init__(self, asterisk: PrivateAsterisk, state_dir: Path) -> None:
        self.asterisk = asterisk
        self.tag = server_tag("bot", asterisk.ari_url)
        self.instance = Instance(state_dir, self.tag, asterisk.ari_url, "bot")
        self.calls: list[MiniCall] = []
        self.arrived: list[StasisStart] = []
        self.client = AriClient(
            asterisk.ari_url,
            asterisk.ari_user,
            asterisk.ari_password,
            "bot",
            self.on_event,
            on_connected=Reconciler(self.instance, lambda: (), lambda: ()),
        )

    def on_event(self, event: Event) -> None:
        if isinstance(event, StasisStart) and event.args[:1] == ("inbound",):
            self.arrived.append(event)
        for call in self.calls:
            call.on_event(event)

    def dial(self, endpoint: str) -> MiniCall:
        call = MiniCall(self.client.rest, self.tag, endpoint=endpoint)
        self.calls.append(call)
        call.push(DialWanted())
        return call

    async def call_in(self) -> MiniCall:
        """A caller reaches the bot's extension (over a Local channel, whose other end stays outside)."""
        seen = len(self.arrived)
        caller = object_id("f" * 8, secrets.token_hex(6), Kind.CALLEE)
        await self.client.rest.originate(caller, "Local/100@from-internal/n", timeout_s=5)
        await until(lambda: len(self.arrived) > seen)
        call = MiniCall(self.client.rest, self.tag, far_id=self.arrived[-1].channel_id)
        self.calls.append(call)
        call.push(CallerArrived())
        return call

    async def ending(self, call: MiniCall) -> Ending:
        return await asyncio.wait_for(call.ending, 10)

    async def is_clean(self) -> bool:
        return not await self.client.rest.list_channels() and not await self.client.rest.list_bridges()


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.05)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    settings = AsteriskSettings(app_name="bot", trunk_domain="127.0.0.1", trunk_port=str(DEAD_PORT))
    async with PrivateAsterisk(fetch(lambda line: None), settings) as asterisk:
        bench = Bench(asterisk, tmp_path)
        with bench.instance:
            async with bench.client as client:
                task = asyncio.create_task(client.run())
                await until(client.registered.is_set)
                yield bench
                await eventually(bench.is_clean)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


async def test_calls_of_every_kind_leave_nothing(bench: Bench) -> None:
    out = bench.dial("Local/124@from-internal/n")
    await until(lambda: out.flow.state is State.TALKING)
    out.push(HangupWanted("enough"))
    assert await bench.ending(out) == Ending(Outcome.ANSWERED, "us", "enough")

    hung_up = bench.dial("Local/124@from-internal/n")
    await until(lambda: hung_up.flow.state is State.TALKING)
    await bench.client.rest.hangup(hung_up.far_id + ";2")
    assert (await bench.ending(hung_up)).outcome is Outcome.ANSWERED

    lost_media = bench.dial("Local/124@from-internal/n")
    await until(lambda: lost_media.flow.state is State.TALKING)
    await bench.client.rest.hangup(lost_media.media_id)
    assert (await bench.ending(lost_media)).outcome is Outcome.FAILED

    lost_bridge = bench.dial("Local/124@from-internal/n")
    await until(lambda: lost_bridge.flow.state is State.TALKING)
    await bench.client.rest.delete_bridge(lost_bridge.bridge_id)
    assert (await bench.ending(lost_bridge)).outcome is Outcome.FAILED

    waiting = bench.dial("PJSIP/100@trunk")
    await until(lambda: waiting.flow.state is State.DIALING)
    waiting.push(HangupWanted("Ctrl-C"))
    assert await bench.ending(waiting) == Ending(Outcome.CANCELLED, "us", "Ctrl-C")

    inbound = await bench.call_in()
    await until(lambda: inbound.flow.state is State.TALKING)
    inbound.push(HandBackWanted("completed", "goodbye"))
    assert await bench.ending(inbound) == Ending(Outcome.ANSWERED, "us", "goodbye")

    at_once = await bench.call_in()
    await bench.client.rest.hangup(at_once.far_id)
    ending = await bench.ending(at_once)
    # Asterisk refuses to answer a channel that is being hung up; the rest is a matter of microseconds.
    refused = ending.outcome is Outcome.FAILED and "could not answer channel" in ending.detail
    assert refused or ending.outcome in {Outcome.CANCELLED, Outcome.ANSWERED}


async def test_refusals_of_a_real_asterisk(bench: Bench) -> None:
    rest = bench.client.rest
    nowhere = bench.dial("PJSIP/100@nowhere")
    assert (await bench.ending(nowhere)).outcome is Outcome.UNREACHABLE
    with pytest.raises(AriNotFound, match="Channel not found"):
        await rest.answer("nobody")
    with pytest.raises(AriNotFound, match="Bridge not found"):
        await rest.add_channels("nothing", ["nobody"])
    with pytest.raises(AriError, match="gives no reason"):
        await rest.external_media(object_id(bench.tag, "a" * 12, Kind.MEDIA), "127.0.0.1:4000", "no-format")
    await rest.hangup("nobody")
    await rest.delete_bridge("nothing")
    async with AriClient(
        bench.asterisk.ari_url, bench.asterisk.ari_user, "wrong", "bot", lambda event: None
    ) as stranger:
        with pytest.raises(AriUnauthorized):
            await stranger.run()


DOOMED = """
import asyncio, sys
from pathlib import Path
from ari_app.ari.client import AriClient
from ari_app.ari.ids import Kind, object_id
from ari_app.ari.instances import Instance
async def main():
    url, user, app, tag, folder = sys.argv[1:]
    password = sys.stdin.readline().strip()
    with Instance(Path(folder), tag, url, app):
        async with AriClient(url, user, password, app, lambda event: None) as client:
            task = asyncio.create_task(client.run())
            await client.registered.wait()
            media, bridge = (object_id(tag, "b" * 12, kind) for kind in (Kind.MEDIA, Kind.BRIDGE))
            await client.rest.create_bridge(bridge)
            await client.rest.external_media(media, "127.0.0.1:4000")
            await asyncio.sleep(0.2)
            await client.rest.add_channels(bridge, [media])
            await client.rest.originate(
                object_id("f" * 8, "c" * 12, Kind.CALLEE), "Local/100@from-internal/n", timeout_s=5
            )
            await asyncio.sleep(0.2)
            print("ready", flush=True)
            await task
asyncio.run(main())
"""


async def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    """Its media channel and bridge are removed, and the caller it talked to goes back to the dialplan."""
    async with PrivateAsterisk(fetch(lambda line: None), AsteriskSettings(app_name="bot")) as asterisk:
        place = [asterisk.ari_url, asterisk.ari_user, "bot", "d" * 8, str(tmp_path)]
        doomed = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", DOOMED, *place),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert doomed.stdin is not None
        assert doomed.stdout is not None
        doomed.stdin.write(asterisk.ari_password.encode() + b"\n")
        assert await asyncio.wait_for(doomed.stdout.readline(), 20) == b"ready\n"
        doomed.send_signal(signal.SIGKILL)
        await doomed.wait()
        bench = Bench(asterisk, tmp_path)
        with bench.instance:
            async with bench.client as client:
                await client.rest.open()
                assert len(await client.rest.list_bridges()) == 1
                assert [c for c in await client.rest.list_channels() if c.in_stasis("bot")]
                task = asyncio.create_task(client.run())
                await until(client.registered.is_set)
                await eventually(bench.is_clean)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
