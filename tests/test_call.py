"""Single calls against a strict ARI peer and real sockets: every stage, every fault, and nothing left behind."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ari_app.ari.client import AriClient
from ari_app.ari.events import Event
from ari_app.ari.outcome import Ending, Outcome
from ari_app.call import Call, CallSettings, Dial, Ended, Progress
from ari_app.dialog import ports
from ari_app.dialog.echo import Echo
from ari_app.rtp.endpoint import RtpSender
from tests.fakes.asterisk import FakeAsterisk, until
from tests.fakes.call_bench import ScriptedBrain, frame, media_of, nothing_leaks

CALLER = "1700000000.1"
TAG = "a" * 8
REFUSED = '{"message": "a scripted refusal"}'


class Bench:
    """One Asterisk, one connection, and the call under test."""

    def __init__(self, asterisk: FakeAsterisk) -> None:
        self.asterisk = asterisk
        self.sender = RtpSender()
        self.calls: list[Call] = []
        self.events: list[Event] = []
        self.seen: list[object] = []
        """What the observer got."""
        self.client = AriClient(asterisk.url, asterisk.user, asterisk.password, "bot", self._on_event)

    def _on_event(self, event: Event) -> None:
        self.events.append(event)
        for call in self.calls:
            call.push_event(event)

    def make(self, brain: ports.Brain, *, dial: Dial | None = None, **settings: Any) -> Call:
        call = Call(
            f"{len(self.calls):012x}",
            ari=self.client.rest,
            sender=self.sender,
            brain=brain,
            settings=CallSettings(tag=TAG, **settings),
            caller_channel_id=None if dial else CALLER,
            dial=dial,
            observers=(self.seen.append,),
        )
        self.calls.append(call)
        return call

    def call_in(self, brain: ports.Brain, **settings: Any) -> tuple[Call, asyncio.Task[Ending]]:
        self.asterisk.caller_arrives(CALLER, app="bot")
        call = self.make(brain, **settings)
        return call, asyncio.create_task(call.run())

    def call_out(
        self, brain: ports.Brain, ring_timeout_s: float = 30, **settings: Any
    ) -> tuple[Call, asyncio.Task[Ending]]:
        dial = Dial("PJSIP/100@outbound", "Bot <200>", ring_timeout_s)
        call = self.make(brain, dial=dial, **settings)
        return call, asyncio.create_task(call.run())

    @property
    def stages(self) -> list[str]:
        return [what.stage for what in self.seen if isinstance(what, Progress)]

    async def talking(self) -> None:
        await until(lambda: "talking" in self.stages)

    @property
    def handed_back(self) -> str:
        """The result with which the caller went back to the dialplan."""
        caller = self.asterisk.channels[CALLER]
        assert not caller.app, "still in the application"
        return caller.variables["ARI_APP_RESULT"]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with nothing_leaks(), FakeAsterisk() as asterisk:
        bench = Bench(asterisk)
        async with bench.sender, bench.client:
            running = asyncio.create_task(bench.client.run())
            await until(bench.client.registered.is_set)
            async with nothing_of_the_calls_leaks():
                yield bench
                asterisk.assert_clean(CALLER)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def nothing_of_the_calls_leaks() -> AsyncIterator[None]:
    """Before the connection and the sender go, which may hide a leak; pooled HTTP connections may stay."""
    before = asyncio.all_tasks()
    yield
    names = [task.get_name() for task in asyncio.all_tasks() - before]
    assert not [name for name in names if name[:12] == "0" * 12], names


async def ended(running: asyncio.Task[Ending]) -> Ending:
    async with asyncio.timeout(10):
        return await running


def is_free(address: tuple[str, int]) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(address)
        except OSError:
            return False
        return True


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# --- the whole life ----------------------------------------------------------------------------------


async def test_an_inbound_call_from_arrival_to_hang_up(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    call, running = bench.call_in(Echo())
    await bench.talking()
    assert bench.asterisk.channels[CALLER].answered
    assert bench.asterisk.bridges == {call.bridge_id: [CALLER, call.media_id]}
    media = media_of(bench.asterisk, call.media_id)
    assert not is_free(media.bot)
    for _ in range(10):
        media.say(frame(5000))
        await asyncio.sleep(0.02)
    await until(lambda: any(a.payload == frame(5000)[::-1] for a in media.hear()))
    bench.asterisk.hang_up(CALLER)
    assert await ended(running) == Ending(Outcome.ANSWERED, "far", "hung up, cause 16 (Normal Clearing)")
    await until(lambda: is_free(media.bot))
    bench.asterisk.assert_clean()
    assert bench.stages == ["talking"]
    assert isinstance(bench.seen[-1], Ended)
    assert not complaints(caplog)


STAGES = {
    "bridge": ("POST", "/bridges"),
    "media": ("POST", "/channels/externalMedia"),
    "answer": ("POST", f"/channels/{CALLER}/answer"),
    "join": ("POST", "/bridges/ari_app-"),
}


@pytest.mark.parametrize("stage", STAGES)
async def test_the_caller_hangs_up_during_set_up(
    bench: Bench, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Asterisk is busy with the step while the news arrive."""
    held = bench.asterisk.hold(*STAGES[stage])
    brain = ScriptedBrain()
    _, running = bench.call_in(brain)
    await held.reached.wait()
    bench.asterisk.hang_up(CALLER)
    await asyncio.sleep(0.03)
    held.go.set()
    ending = await ended(running)
    assert (ending.outcome, ending.by) == (Outcome.CANCELLED, "far")
    bench.asterisk.assert_clean()
    assert not brain.reached.is_set()
    assert not complaints(caplog)


@pytest.mark.parametrize("stage", STAGES)
async def test_a_step_meets_a_caller_who_has_just_hung_up(
    bench: Bench, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The refusal of the step may come before the event."""
    held = bench.asterisk.hold(*STAGES[stage])
    _, running = bench.call_in(ScriptedBrain())
    await held.reached.wait()
    held.go.set()
    bench.asterisk.hang_up(CALLER)
    ending = await ended(running)
    assert (ending.outcome, ending.by) == (Outcome.CANCELLED, "far")
    bench.asterisk.assert_clean()
    assert not complaints(caplog)


async def test_the_caller_hangs_up_while_the_brain_starts(bench: Bench) -> None:
    brain = ScriptedBrain()
    brain.gate.clear()
    _, running = bench.call_in(brain)
    await brain.reached.wait()
    bench.asterisk.hang_up(CALLER)
    assert (await ended(running)).by == "far"
    assert not brain.is_open
    bench.asterisk.assert_clean()


async def test_arrival_and_hang_up_in_one_breath(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """All events of a short call may be read before its task runs for the first time."""
    asterisk = bench.asterisk
    asterisk.caller_arrives(CALLER, app="bot")
    asterisk.hang_up(CALLER)
    await until(lambda: len(bench.events) == 4)
    call = bench.make(ScriptedBrain())
    for event in bench.events[1:]:  # the first, StasisStart, makes somebody construct the call
        call.push_event(event)
    ending = await ended(asyncio.create_task(call.run()))
    assert (ending.outcome, ending.by) == (Outcome.CANCELLED, "far")
    asterisk.assert_clean()
    assert not complaints(caplog)
    assert not asterisk.asked("POST", "/answer")


async def test_told_to_hang_up_before_it_runs(bench: Bench) -> None:
    bench.asterisk.caller_arrives(CALLER, app="bot")
    call = bench.make(ScriptedBrain())
    call.hang_up("stopping")
    assert await ended(asyncio.create_task(call.run())) == Ending(Outcome.CANCELLED, "us", "stopping")
    bench.asterisk.assert_clean()


# --- Asterisk refuses --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 409, 500])
@pytest.mark.parametrize("stage", STAGES)
async def test_a_refused_step_returns_the_caller_to_the_dialplan(
    bench: Bench, stage: str, status: int
) -> None:
    method, prefix = STAGES[stage]
    bench.asterisk.script(method, prefix, status=status, body=REFUSED)
    brain = ScriptedBrain()
    _, running = bench.call_in(brain)
    ending = await ended(running)
    assert (ending.outcome, ending.by) == (Outcome.FAILED, "asterisk")
    assert "a scripted refusal" in ending.detail
    assert bench.handed_back == "failed"
    bench.asterisk.assert_clean(CALLER)
    assert not brain.reached.is_set()


@pytest.mark.parametrize("stage", STAGES)
async def test_a_lost_reply_leaves_nothing(bench: Bench, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step was carried out, but all we get is an error: what it made is taken down."""
    method, prefix = STAGES[stage]
    bench.asterisk.script(method, prefix, status=500, body=REFUSED, carry_out_first=True)
    _, running = bench.call_in(ScriptedBrain())
    assert (await ended(running)).outcome is Outcome.FAILED
    assert bench.handed_back == "failed"
    bench.asterisk.assert_clean(CALLER)
