"""After a connect: calls learn what they missed, and what dead processes left is taken down."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ari_app.ari import reconcile
from ari_app.ari.client import AriClient
from ari_app.ari.events import ChannelHold, ChannelVanished, Event, StasisStart
from ari_app.ari.ids import Kind, object_id
from ari_app.ari.instances import Instance
from ari_app.ari.reconcile import Reconciler
from tests.fakes.asterisk import Channel, FakeAsterisk, until

OURS, DEAD, ELSEWHERE = "0" * 8, "d" * 8, "e" * 8
LIVING, OLD = "1" * 12, "2" * 12
FOREIGN = "1600000000.9"
CALLER, STRANDED, STUCK = "1700000000.1", "1700000000.2", "1700000099.1"


def leave(asterisk: FakeAsterisk, tag: str, call_id: str) -> list[str]:
    """The objects of a call."""
    media, bridge = object_id(tag, call_id, Kind.MEDIA), object_id(tag, call_id, Kind.BRIDGE)
    asterisk.channels[media] = Channel(media, "UnicastRTP/1", "Up", app="bot")
    asterisk.bridges[bridge] = [media]
    return [media, bridge]


async def test_a_start_sweeps_what_the_dead_left_and_nothing_else(tmp_path: Path) -> None:
    async with FakeAsterisk() as asterisk:
        old, dead = leave(asterisk, OURS, OLD), leave(asterisk, DEAD, LIVING)
        kept = [*leave(asterisk, ELSEWHERE, OLD), FOREIGN]
        asterisk.channels[FOREIGN] = Channel(FOREIGN, "PJSIP/phone", "Up")
        asterisk.channels[STRANDED] = Channel(STRANDED, "PJSIP/caller", "Up", app="bot")
        # One that resists does not keep the application from being registered.
        asterisk.script("DELETE", f"/channels/{old[0]}", status=500, body='{"message": "no"}')
        (tmp_path / "instances").mkdir()
        (tmp_path / "instances" / f"{DEAD}.lock").write_text(asterisk.url)
        with Instance(tmp_path, OURS, asterisk.url, "bot") as instance:
            reconciler = Reconciler(instance, lambda: (), lambda: ())
            events: list[Event] = []
            await connect(asterisk, events, reconciler)
            assert set(asterisk.channels) | set(asterisk.bridges) == {*kept, old[0], STRANDED}
            await connect(asterisk, events, reconciler)
        asterisk.assert_clean(*kept, STRANDED)
        stranded = asterisk.channels[STRANDED]
        assert (stranded.app, stranded.variables) == ("", {"ARI_APP_RESULT": "failed"})
        assert not set(dead) & (set(asterisk.channels) | set(asterisk.bridges))


async def connect(asterisk: FakeAsterisk, events: list[Event], reconciler: Reconciler) -> None:
    async with AriClient(
        asterisk.url, asterisk.user, asterisk.password, "bot", events.append, on_connected=reconciler
    ) as client:
        task = asyncio.create_task(client.run())
        await until(client.registered.is_set)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: not asterisk.is_registered("bot"))


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def registered(asterisk: FakeAsterisk, reconciler: Reconciler) -> AsyncIterator[AriClient]:
    """A client that stays registered, and whose events nobody reads."""
    async with AriClient(
        *(asterisk.url, asterisk.user, asterisk.password, "bot"), lambda event: None, on_connected=reconciler
    ) as client:
        running = asyncio.create_task(client.run())
        await until(client.registered.is_set)
        try:
            yield client
        finally:
            await ended(running)


async def test_a_reconnect_tells_living_calls_what_they_missed(tmp_path: Path) -> None:
    events: list[Event] = []
    known: Sequence[str] = ()
    async with FakeAsterisk() as asterisk:
        with Instance(tmp_path, OURS, asterisk.url, "bot") as instance:
            async with AriClient(
                asterisk.url,
                asterisk.user,
                asterisk.password,
                "bot",
                events.append,
                on_connected=Reconciler(instance, lambda: known, lambda: {LIVING}),
            ) as client:
                task = asyncio.create_task(client.run())
                await until(client.registered.is_set)
                asterisk.caller_arrives(CALLER, app="bot")
                await until(lambda: len(events) == 1)
                media, bridge = leave(asterisk, OURS, LIVING)
                known = (CALLER, media)
                # In the gap the caller hangs up: nobody is told.
                asterisk.drop_websockets()
                await until(lambda: not client.registered.is_set())
                asterisk.hang_up(CALLER)
                await until(client.registered.is_set)
                await until(lambda: len(events) == 3)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        assert events[1] == ChannelVanished(CALLER)
        assert isinstance(events[2], StasisStart)
        assert events[2].channel_id == media
        asterisk.assert_clean(media, bridge)


async def test_a_caller_who_arrives_while_we_reconcile_is_not_stranded(tmp_path: Path) -> None:
    events: list[Event] = []
    async with FakeAsterisk() as asterisk:
        with Instance(tmp_path, OURS, asterisk.url, "bot") as instance:
            reconciler = Reconciler(instance, lambda: (), lambda: ())

            async def on_connected(client: AriClient, before: Sequence[object]) -> None:
                asterisk.caller_arrives(CALLER, app="bot")
                await reconciler(client, before)  # type: ignore[arg-type]

            async with AriClient(
                asterisk.url,
                asterisk.user,
                asterisk.password,
                "bot",
                events.append,
                on_connected=on_connected,
            ) as client:
                task = asyncio.create_task(client.run())
                await until(lambda: len(events) == 1)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        assert asterisk.channels[CALLER].app == "bot"


async def test_a_reconnect_tells_a_living_call_whether_it_is_held(tmp_path: Path) -> None:
    """Missed while the connection was away: else the line of a phone on hold would count as dead."""
    events: list[Event] = []
    async with FakeAsterisk() as asterisk:
        asterisk.channels[CALLER] = Channel(
            CALLER, "PJSIP/caller", "Up", app="bot", variables={"CHANNEL(rtp,hold)": "1"}
        )
        media, bridge = leave(asterisk, OURS, LIVING)  # which has no such function
        with Instance(tmp_path, OURS, asterisk.url, "bot") as instance:
            reconciler = Reconciler(instance, lambda: (CALLER, media), lambda: {LIVING})
            await connect(asterisk, events, reconciler)
            asterisk.channels[CALLER].variables["CHANNEL(rtp,hold)"] = "0"
            await connect(asterisk, events, reconciler)
            del asterisk.channels[CALLER].variables["CHANNEL(rtp,hold)"]  # its module is not loaded
            await connect(asterisk, events, reconciler)
        holds = [event for event in events if isinstance(event, ChannelHold)]
        assert holds == [ChannelHold(CALLER, True), ChannelHold(CALLER, False)]
        assert asterisk.channels[CALLER].app == "bot"
        asterisk.assert_clean(CALLER, media, bridge)


async def test_a_caller_whom_no_call_has_is_handed_back_at_the_second_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was refused while Asterisk did not listen, or whose event was lost."""
    monkeypatch.setattr(reconcile, "SWEEP_EVERY_S", 0.05)
    async with FakeAsterisk() as asterisk:
        with Instance(tmp_path, OURS, asterisk.url, "bot") as instance:
            reconciler = Reconciler(instance, lambda: {CALLER}, lambda: ())
            async with registered(asterisk, reconciler) as client:
                asterisk.caller_arrives(CALLER, app="bot")
                asterisk.caller_arrives(STRANDED, app="bot")
                asterisk.caller_arrives(FOREIGN, app="another")
                await reconciler.rescue(client, await client.rest.list_channels())
                assert asterisk.channels[STRANDED].app == "bot"  # its call may be about to begin
                sweeping = asyncio.create_task(reconciler.sweep_for_ever(client))
                await until(lambda: asterisk.channels[STRANDED].app == "")
                await ended(sweeping)
        assert asterisk.channels[STRANDED].variables == {"ARI_APP_RESULT": "failed"}
        assert [asterisk.channels[known].app for known in (CALLER, FOREIGN)] == ["bot", "another"]


async def test_a_channel_about_which_asterisk_says_nothing_keeps_no_application_from_being_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "ANSWER_S", 0.2)
    others = [f"1700000000.{number}" for number in range(2, 2 + 2 * reconcile.AT_ONCE)]
    events: list[Event] = []
    async with FakeAsterisk() as asterisk:
        for channel_id in (CALLER, *others, STUCK):
            held = {"CHANNEL(rtp,hold)": "1"}
            asterisk.channels[channel_id] = Channel(channel_id, "PJSIP/x", "Up", app="bot", variables=held)
        asterisk.stuck = {("GET", f"/channels/{CALLER}/variable"), ("POST", f"/channels/{STUCK}/variable")}
        with Instance(tmp_path, OURS, asterisk.url, "bot") as instance:
            reconciler = Reconciler(instance, lambda: (CALLER, *others), lambda: ())
            await connect(asterisk, events, reconciler)
        holds = {event.channel_id for event in events if isinstance(event, ChannelHold)}
        assert holds == set(others)


async def test_what_can_not_be_taken_down_keeps_nothing_else_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many resist as are asked for at a time, and whoever comes first of them would come first each time."""
    monkeypatch.setattr(reconcile, "SWEEP_EVERY_S", 0.05)
    monkeypatch.setattr(reconcile, "ANSWER_S", 0.2)
    swept: list[int] = []
    async with FakeAsterisk() as asterisk:
        with Instance(tmp_path, OURS, asterisk.url, "bot") as instance:
            reconciler = Reconciler(instance, lambda: (), lambda: (), count_swept=swept.append)
            async with registered(asterisk, reconciler) as client:
                stuck = [leave(asterisk, OURS, f"{number:012x}")[0] for number in range(reconcile.AT_ONCE)]
                asterisk.stuck = {("DELETE", f"/channels/{media}") for media in stuck}
                last = leave(asterisk, OURS, "f" * 12)
                asterisk.caller_arrives(STRANDED, app="bot")
                sweeping = asyncio.create_task(reconciler.sweep_for_ever(client))
                await until(lambda: not {*last, *asterisk.bridges} & {*asterisk.channels, *asterisk.bridges})
                await until(lambda: asterisk.channels[STRANDED].app == "")
                assert client.registered.is_set()
                asterisk.assert_clean(*stuck, STRANDED)
                await ended(sweeping)
        # An answer that comes too late on a busy machine is not counted.
        assert 0 < sum(swept) <= reconcile.AT_ONCE + len(last)


async def test_who_starts_anew_is_not_kept_from_it_by_who_sweeps_after_him(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when Asterisk says nothing; what the dead process left is then taken down the next time."""
    async with FakeAsterisk() as asterisk:
        dead = leave(asterisk, DEAD, OLD)
        asterisk.stuck = {("DELETE", f"/channels/{dead[0]}")}
        (tmp_path / "instances").mkdir()
        (tmp_path / "instances" / f"{DEAD}.lock").write_text(asterisk.url)
        with Instance(tmp_path, OURS, asterisk.url, "bot") as instance:
            reconciler = Reconciler(instance, lambda: (), lambda: ())
            async with AriClient(
                asterisk.url,
                asterisk.user,
                asterisk.password,
                "bot",
                lambda event: None,
                on_connected=reconciler,
            ) as client:
                running = asyncio.create_task(client.run())
                await until(lambda: dead[1] not in asterisk.bridges)  # it sweeps

                def start() -> None:
                    with Instance(tmp_path, DEAD, asterisk.url, "another"):
                        pass

                await asyncio.to_thread(start)
                await until(client.registered.is_set)
                (tmp_path / "instances" / f"{DEAD}.lock").write_text(asterisk.url)
                monkeypatch.setattr(reconcile, "ANSWER_S", 0.1)
                await reconciler.sweep(client)
                assert dead[0] in asterisk.channels
                asterisk.stuck.clear()
                await reconciler.sweep(client)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
        asterisk.assert_clean()


async def test_sweeping_outlives_a_state_directory_that_can_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was deleted, its disk is away, or no descriptor is left to look into it."""
    monkeypatch.setattr(reconcile, "SWEEP_EVERY_S", 0.05)
    async with FakeAsterisk() as asterisk:
        with Instance(tmp_path, OURS, asterisk.url, "bot") as instance:
            reconciler = Reconciler(instance, lambda: (), lambda: ())
            async with registered(asterisk, reconciler) as client:
                sweeping = asyncio.create_task(reconciler.sweep_for_ever(client))
                shutil.rmtree(tmp_path / "instances")
                for call_id in (OLD, LIVING):
                    leave(asterisk, OURS, call_id)
                    await until(lambda: not asterisk.bridges and not asterisk.channels)
                asterisk.drop_websockets()
                await until(lambda: not client.registered.is_set())
                await until(client.registered.is_set)
                await ended(sweeping)
