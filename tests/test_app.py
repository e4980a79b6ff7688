"""The whole application against a strict ARI peer: many calls, losses of the connection, stops and refusals."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from ari_app import app as app_module
from ari_app import calls, outbound
from ari_app.app import App
from ari_app.ari import instances, reconcile
from ari_app.ari.client import AriClient
from ari_app.ari.ids import Kind, object_id, server_tag
from ari_app.ari.outcome import Ending, Outcome
from ari_app.config import Config, load
from ari_app.errors import (
    AriReplaced,
    AriUnauthorized,
    AriUnreachable,
    ConfigError,
    EngineError,
    LimitReached,
    MediaError,
    SetupError,
)
from ari_app.happenings import Ended, Happening, Progress
from ari_app.load import REMEMBERED
from tests.fakes.asterisk import Channel, FakeAsterisk, until
from tests.fakes.call_bench import frame, free_port, media_of, nothing_leaks
from tests.fakes.openai_server import error, fake_openai, speech
from tests.fakes.otlp_collector import collecting

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(app_module, "FIRST_CONNECTION_S", 0.5)
    monkeypatch.setattr(instances, "PATIENCE_S", 0.1)


@pytest.fixture
async def asterisk() -> AsyncIterator[FakeAsterisk]:
    async with nothing_leaks(), FakeAsterisk() as fake:
        yield fake


def config(asterisk: FakeAsterisk, **settings: str) -> Config:
    usual = {
        "ARI_URL": asterisk.url,
        "ARI_USERNAME": asterisk.user,
        "ARI_PASSWORD": asterisk.password,
        "DIAL_EXTENSION_DIGITS": "4",
        "ARI_APP": "bot",
        "MODE": "echo",
        "DRAIN_SECONDS": "1",
    }
    return load({}, {**usual, **settings}, {})


class Served:
    """A serving application and its callers."""

    def __init__(self, asterisk: FakeAsterisk, **settings: str) -> None:
        self.asterisk = asterisk
        self.stop = asyncio.Event()
        self.ready = asyncio.Event()
        self.app = App(config(asterisk, **settings), command="serve")
        self.task = asyncio.create_task(self.app.serve(ready=self.ready.set, stop=self.stop))

    def bridge_of(self, channel_id: str) -> str:
        """The bridge that the channel is in, or nothing."""
        return next(
            (bridge for bridge, members in self.asterisk.bridges.items() if channel_id in members), ""
        )

    async def call(self, channel_id: str) -> None:
        """A caller comes, and is talked to."""
        self.asterisk.caller_arrives(channel_id, app="bot")
        await until(lambda: bool(self.bridge_of(channel_id)))

    def media_of(self, channel_id: str) -> str:
        """Id of the media channel that the caller talks to."""
        (media_id,) = set(self.asterisk.bridges[self.bridge_of(channel_id)]) - {channel_id}
        return media_id

    def result(self, channel_id: str) -> str:
        """How the caller was handed back; nothing while he is in the application."""
        channel = self.asterisk.channels[channel_id]
        return "" if channel.app else channel.variables["ARI_APP_RESULT"]

    @property
    def calls(self) -> int:
        """How many calls ever got a media channel."""
        return len(self.asterisk.asked("POST", "/externalMedia"))


@asynccontextmanager
async def serving(asterisk: FakeAsterisk, **settings: str) -> AsyncIterator[Served]:
    served = Served(asterisk, **settings)
    try:
        await until(lambda: served.ready.is_set() or served.task.done())
        yield served
        served.stop.set()
        async with asyncio.timeout(10):
            await served.task
    finally:
        served.task.cancel()
        await asyncio.gather(served.task, return_exceptions=True)


async def test_calls_are_traced_where_the_environment_names_a_collector(
    asterisk: FakeAsterisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        async with serving(asterisk) as served:
            await served.call("1700000000.1")
            asterisk.hang_up("1700000000.1")
            await until(lambda: not asterisk.bridges)
    (call,) = collector.named("call")
    assert call.attributes["asterisk.channel_id"] == "1700000000.1"
    assert call.attributes["ari_app.mode"] == "echo" and call.attributes["ari_app.ended_by"] == "far"
    assert [event.name for event in call.events] == ["talking"]


# --- calls -------------------------------------------------------------------------------------------


async def test_calls_do_not_touch_each_other(asterisk: FakeAsterisk) -> None:
    async with serving(asterisk) as served:
        callers = ["1700000000.1", "1700000000.2", "1700000000.3"]
        for caller in callers:
            asterisk.caller_arrives(caller, app="bot")
        await until(lambda: all(served.bridge_of(caller) for caller in callers))
        assert len(asterisk.bridges) == 3
        asterisk.hang_up(callers[1])
        await until(lambda: len(asterisk.bridges) == 2)
        assert served.bridge_of(callers[0]) and served.bridge_of(callers[2])
        media = media_of(asterisk, served.media_of(callers[2]))
        for _ in range(10):
            media.say(frame(5000))
            await asyncio.sleep(0.02)
        await until(lambda: any(a.payload == frame(5000)[::-1] for a in media.hear()))
        other = media_of(asterisk, served.media_of(callers[0]))
        assert {a.payload for a in other.hear()} == {bytes(320)}, "hears nothing of the other call"
        for caller in (callers[0], callers[2]):
            asterisk.hang_up(caller)
        await until(lambda: not asterisk.bridges)
        asterisk.assert_clean()


async def test_all_lines_are_taken(asterisk: FakeAsterisk, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(asterisk, MAX_CALLS="2") as served:
        await served.call("1700000000.1")
        await served.call("1700000000.2")
        asterisk.caller_arrives("1700000000.3", app="bot", number="+15551234567")
        await until(lambda: served.result("1700000000.3") == "busy")
        assert served.bridge_of("1700000000.1") and served.bridge_of("1700000000.2")
        assert served.calls == 2
        asterisk.hang_up("1700000000.1")
        await until(lambda: len(asterisk.bridges) == len(served.app._calls) == 1)
        await served.call("1700000000.4")
    (line,) = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert "2 lines are taken" in line
    assert "1234" not in line, "numbers are masked"


async def test_a_caller_handed_back_may_come_again(asterisk: FakeAsterisk) -> None:
    async with serving(asterisk) as served:
        await served.call("1700000000.1")
        asterisk.vanish(served.media_of("1700000000.1"))
        await until(lambda: served.result("1700000000.1") == "failed")
        asterisk.channels["1700000000.1"].app = "bot"
        asterisk.event("1700000000.1", "StasisStart", args=["inbound", "100"])
        await until(lambda: bool(served.bridge_of("1700000000.1")))
        assert served.calls == 2


async def test_a_late_object_of_ours_is_hung_up(asterisk: FakeAsterisk) -> None:
    async with serving(asterisk):
        late = object_id(server_tag("bot", asterisk.url), "0" * 12, Kind.CALLEE)
        asterisk.channels[late] = Channel(late, "PJSIP/trunk-1", "Up", "bot")
        asterisk.event(late, "StasisStart", args=[])
        await until(lambda: late not in asterisk.channels)
        assert not asterisk.bridges


async def test_recordings_go_where_they_should(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    root = tmp_path / "recordings"
    async with serving(asterisk, SAVE_RECORDINGS="yes", RECORDINGS_DIR=str(root)) as served:
        await served.call("1700000000.1")
        await until(lambda: any(root.glob("serve_*_*/full_call.wav")))


# --- the connection is lost --------------------------------------------------------------------------


async def test_calls_outlive_the_event_connection(asterisk: FakeAsterisk) -> None:
    """And what Asterisk says once more about their channels makes no second call."""
    async with serving(asterisk) as served:
        await served.call("1700000000.1")
        await served.call("1700000000.2")
        media = media_of(asterisk, served.media_of("1700000000.2"))
        asterisk.drop_websockets()
        asterisk.vanish("1700000000.1")  # nobody is told
        await until(lambda: asterisk.is_registered("bot"))
        await until(lambda: len(asterisk.bridges) == 1)
        assert served.bridge_of("1700000000.2")
        asterisk.event("1700000000.2", "StasisStart", args=["inbound", "100"])
        heard = len(media.hear())
        await until(lambda: len(media.hear()) > heard + 5)
        assert served.calls == 2
        asterisk.assert_clean("1700000000.2", served.media_of("1700000000.2"), *asterisk.bridges)


async def test_asterisk_dies_with_all_its_calls_and_comes_back(asterisk: FakeAsterisk) -> None:
    async with serving(asterisk) as served:
        await served.call("1700000000.1")
        await asterisk.stop()
        for channel in asterisk.channels.values():
            if channel.rtp is not None:
                channel.rtp.close()
        asterisk.channels.clear()
        asterisk.bridges.clear()
        await asterisk.start()
        await until(lambda: asterisk.is_registered("bot"))
        await served.call("1700000009.1")
        assert served.calls == 2
        assert not served.task.done()


async def test_another_process_takes_the_application(asterisk: FakeAsterisk) -> None:
    async with serving(asterisk) as served:
        await served.call("1700000000.1")
        async with AriClient(asterisk.url, asterisk.user, asterisk.password, "bot", lambda _: None) as rival:
            running = asyncio.create_task(rival.run())
            with pytest.raises(AriReplaced, match="ARI_APP"):
                await served.task
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        asterisk.assert_clean()
        served.task = asyncio.create_task(asyncio.sleep(0))


# --- stopping ----------------------------------------------------------------------------------------


async def test_a_stop_gives_callers_time_and_takes_no_new_ones(asterisk: FakeAsterisk) -> None:
    async with serving(asterisk) as served:
        await served.call("1700000000.1")
        await served.call("1700000000.2")
        served.stop.set()
        await asyncio.sleep(0.05)
        asterisk.caller_arrives("1700000000.3", app="bot")
        await until(lambda: served.result("1700000000.3") == "busy")
        assert served.bridge_of("1700000000.1"), "still talked to"
        asterisk.hang_up("1700000000.1")
        async with asyncio.timeout(5):
            await served.task
        asterisk.assert_clean("1700000000.3")
        assert served.calls == 2


async def test_a_caller_who_comes_at_the_very_end_of_a_stop(asterisk: FakeAsterisk) -> None:
    async with serving(asterisk) as served:
        await served.call("1700000000.1")
        hanging_up = asterisk.hold("DELETE", "/channels/1700000000.1")
        asterisk.script("POST", "/channels/1700000000.2/variable", delay_s=0.2)
        served.stop.set()
        await hanging_up.reached.wait()
        asterisk.caller_arrives("1700000000.2", app="bot")
        hanging_up.go.set()
        async with asyncio.timeout(5):
            await served.task
        assert served.result("1700000000.2") == "busy"
        asterisk.assert_clean("1700000000.2")


async def test_a_caller_who_comes_while_a_cancelled_server_ends_its_calls(asterisk: FakeAsterisk) -> None:
    async with serving(asterisk) as served:
        await served.call("1700000000.1")
        hanging_up = asterisk.hold("DELETE", "/channels/1700000000.1")
        served.task.cancel()
        await hanging_up.reached.wait()
        asterisk.caller_arrives("1700000000.2", app="bot")
        await until(lambda: served.result("1700000000.2") == "busy")
        hanging_up.go.set()
        with pytest.raises(asyncio.CancelledError):
            await served.task
        asterisk.assert_clean("1700000000.2")
        served.task = asyncio.create_task(asyncio.sleep(0))


async def test_a_server_cancelled_twice_waits_for_nobody(asterisk: FakeAsterisk) -> None:
    async with serving(asterisk) as served:
        await served.call("1700000000.1")
        asterisk.script("DELETE", "/channels/1700000000.1", delay_s=0.5)
        served.task.cancel()
        await until(lambda: len(asterisk.channels) == 1)
        served.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await served.task
        asterisk.assert_clean()
        served.task = asyncio.create_task(asyncio.sleep(0))


async def test_a_stop_does_not_wait_for_an_asterisk_that_hardly_answers(
    asterisk: FakeAsterisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "END_TIMEOUT_S", 0.1)
    async with serving(asterisk) as served:
        await served.call("1700000000.1")
        asterisk.script("DELETE", "/channels/1700000000.1", delay_s=1.5)
        served.stop.set()
        await until(served.task.done, within_s=1.2)
        asterisk.assert_clean()


async def test_who_is_still_there_at_the_end_of_a_stop_hears_goodbye(asterisk: FakeAsterisk) -> None:
    async with fake_openai(KEY) as openai:
        openai.routine["/v1/audio/speech"] = speech(b"\0\x10" * 4800)
        pipeline = {"MODE": "pipeline", "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": openai.url}
        async with serving(asterisk, DRAIN_SECONDS="0", **pipeline) as served:
            await served.call("1700000000.1")
            media = media_of(asterisk, served.media_of("1700000000.1"))
            await until(lambda: bool(media.hear()))
            assert not any(any(a.payload) for a in media.hear()), "there is no greeting"
            said_before_hangup = False

            async def listen() -> None:
                nonlocal said_before_hangup
                while True:
                    said_before_hangup = any(any(a.payload) for a in media.hear()) or said_before_hangup
                    await asyncio.sleep(0.005)

            listening = asyncio.create_task(listen())
            served.stop.set()
            async with asyncio.timeout(8):
                await served.task
            listening.cancel()
            assert said_before_hangup
    asterisk.assert_clean()


async def test_a_caller_who_leaves_during_goodbye_keeps_nobody_waiting(asterisk: FakeAsterisk) -> None:
    async with fake_openai(KEY) as openai:
        openai.routine["/v1/audio/speech"] = speech(b"\0\x10" * 24000 * 20)
        pipeline = {"MODE": "pipeline", "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": openai.url}
        async with serving(asterisk, DRAIN_SECONDS="0", **pipeline) as served:
            await served.call("1700000000.1")
            media = media_of(asterisk, served.media_of("1700000000.1"))
            served.stop.set()
            await until(lambda: any(any(a.payload) for a in media.hear()))
            asterisk.hang_up("1700000000.1")
            await until(served.task.done, within_s=5)
    asterisk.assert_clean()


# --- health ------------------------------------------------------------------------------------------


async def test_health_from_the_start_to_the_end_of_a_stop(asterisk: FakeAsterisk) -> None:
    port = free_port()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:

        async def ask(path: str) -> tuple[int, dict[str, object]]:
            async with http.get(path) as answer:
                return answer.status, await answer.json()

        async with serving(asterisk, WEB_PORT=str(port)) as served:
            assert (await ask("/live"))[0] == 200
            status, state = await ask("/ready")
            assert status == 200 and state["ready"] is True and state["calls"] == 0
            await served.call("1700000000.1")
            assert (await ask("/ready"))[1]["calls"] == 1
            await asterisk.stop()
            await until(lambda: not served.app._client.registered.is_set())
            assert (await ask("/ready"))[0] == 503, "no call reaches us"
            assert (await ask("/live"))[0] == 200, "a restart of ours would not help"
            await asterisk.start()
            await until(lambda: served.app._client.registered.is_set())
            assert (await ask("/ready"))[0] == 200
            served.stop.set()
            await asyncio.sleep(0.05)
            status, state = await ask("/ready")
            assert status == 503 and state["draining"] is True and state["calls"] == 1
            assert (await ask("/live"))[0] == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask("/live")


async def test_a_health_port_that_is_taken_is_named(asterisk: FakeAsterisk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SetupError, match="WEB_PORT"):
        await serve(asterisk, WEB_PORT=str(taken.getsockname()[1]))


# --- it cannot start ---------------------------------------------------------------------------------


async def dial(asterisk: FakeAsterisk, number: str = "100", **settings: str) -> Ending:
    app = App(config(asterisk, **settings), command="dial")
    return await app.dial(number, observer=lambda _: None, hang_up=asyncio.Event())


async def serve(asterisk: FakeAsterisk, **settings: str) -> None:
    app = App(config(asterisk, **settings), command="serve")
    await app.serve(ready=lambda: pytest.fail("ready"), stop=asyncio.Event())


@pytest.mark.parametrize("command", [serve, dial])
async def test_a_wrong_password(asterisk: FakeAsterisk, command: type) -> None:
    with pytest.raises(AriUnauthorized) as raised:
        await command(asterisk, ARI_PASSWORD="not-the-password")
    assert "not-the-password" not in str(raised.value)


@pytest.mark.parametrize("command", [serve, dial])
async def test_nobody_is_there(asterisk: FakeAsterisk, command: type) -> None:
    await asterisk.stop()
    with pytest.raises(AriUnreachable, match="ARI_URL"):
        await command(asterisk)


@pytest.mark.parametrize("number", ["", "12 34", "100@evil", "+", "1" * 33, "100\n", "{number}"])
async def test_a_number_that_is_none(asterisk: FakeAsterisk, number: str) -> None:
    with pytest.raises(ConfigError, match="not a number to call"):
        await dial(asterisk, number)
    assert asterisk.connections == 0


async def test_the_application_is_served_already(asterisk: FakeAsterisk) -> None:
    async with serving(asterisk):
        with pytest.raises(ConfigError, match="ARI_APP"):
            await serve(asterisk)
        assert asterisk.connections == 1, "the one that serves was not disturbed"


async def test_no_place_for_state(
    asterisk: FakeAsterisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(SetupError, match="cannot keep a file"):
        await serve(asterisk)
    assert asterisk.connections == 0


async def test_an_address_that_is_not_ours(asterisk: FakeAsterisk) -> None:
    with pytest.raises(MediaError, match="RTP_HOST"):
        await serve(asterisk, RTP_HOST="192.0.2.1")
    assert asterisk.connections == 0


async def test_a_wrong_key_is_found_at_the_start(asterisk: FakeAsterisk) -> None:
    async with fake_openai(KEY) as openai:
        openai.routine["/v1/audio/speech"] = error(401, f"Incorrect API key provided: {KEY}")
        with pytest.raises(EngineError) as raised:
            await serve(asterisk, MODE="pipeline", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=openai.url)
    assert KEY not in str(raised.value)


# --- dial --------------------------------------------------------------------------------------------


async def test_dial_beside_a_server(asterisk: FakeAsterisk) -> None:
    seen: list[Happening] = []
    async with serving(asterisk) as served:
        await served.call("1700000000.1")
        app = App(config(asterisk, DIAL_ALLOW="*1*2#"), command="dial")
        dialing = asyncio.create_task(app.dial("*1*2#", observer=seen.append, hang_up=asyncio.Event()))
        await until(lambda: Progress("dialing") in seen)
        await until(lambda: asterisk.asked("POST", "/channels") != [])
        callee = next(channel for channel in asterisk.channels.values() if "*1*2#" in channel.name)
        asterisk.answers(callee.id)
        await until(lambda: Progress("talking") in seen)
        asterisk.hang_up(callee.id)
        assert (await dialing).outcome is Outcome.ANSWERED
        assert served.bridge_of("1700000000.1")
        assert asterisk.asked("POST", "/channels")[0]["endpoint"] == "PJSIP/*1*2#@trunk"
    assert isinstance(seen[-1], Ended)
    asterisk.assert_clean()


async def test_dial_is_told_to_hang_up(asterisk: FakeAsterisk) -> None:
    hang_up = asyncio.Event()
    app = App(config(asterisk), command="dial")
    dialing = asyncio.create_task(app.dial("100", observer=lambda _: None, hang_up=hang_up))
    await until(lambda: bool(asterisk.channels))
    hang_up.set()
    assert (await dialing) == Ending(Outcome.CANCELLED, "us", "hung up here")
    asterisk.assert_clean()


async def test_dial_is_told_to_hang_up_before_it_dials(asterisk: FakeAsterisk) -> None:
    hang_up = asyncio.Event()
    hang_up.set()
    ending = await App(config(asterisk), command="dial").dial("100", observer=lambda _: None, hang_up=hang_up)
    assert ending.outcome is Outcome.CANCELLED
    assert not asterisk.asked("POST", "/channels")


async def test_dial_is_cancelled(asterisk: FakeAsterisk) -> None:
    dialing = asyncio.create_task(dial(asterisk))
    await until(lambda: bool(asterisk.channels))
    dialing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialing
    asterisk.assert_clean()


@pytest.mark.parametrize(
    ("number", "said"),
    [("+15551234567", "DIAL_ALLOW=+15551234567"), ("911", "emergency"), ("0015551", "+15551")],
)
async def test_a_number_that_may_not_be_called(asterisk: FakeAsterisk, number: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        await dial(asterisk, number)
    assert said in str(refused.value)
    assert asterisk.connections == 0


async def test_calls_at_the_same_time_are_counted_over_processes(
    asterisk: FakeAsterisk, tmp_path: Path
) -> None:
    first = asyncio.create_task(dial(asterisk, DIAL_CONCURRENT="1"))
    await until(lambda: bool(asterisk.channels))
    with pytest.raises(LimitReached, match="DIAL_CONCURRENT"):
        await dial(asterisk, DIAL_CONCURRENT="1")
    (channel,) = asterisk.channels
    asterisk.refuses(channel, 486, 17)
    assert (await first).outcome is Outcome.BUSY
    with pytest.raises(LimitReached, match="DIAL_PER_MINUTE"):
        await dial(asterisk, DIAL_PER_MINUTE="1")


async def in_the_last_second(asterisk: FakeAsterisk, tmp_path: Path) -> tuple[asyncio.Task[Ending], Path]:
    """A call that is answered when a second of the day's one minute is left; and the ledger."""
    now = time.time()
    spent = {"call_id": "0" * 16, "started_at": now - 600, "limit_s": 1000.0, "ended_at": now - 600 + 59}
    ledger = tmp_path / "state" / "ari_app" / "dialled" / "ledger.json"
    ledger.parent.mkdir(parents=True)
    ledger.write_text(json.dumps([spent]))
    dialing = asyncio.create_task(dial(asterisk, DIAL_DAILY_MINUTES="1"))
    await until(lambda: bool(asterisk.channels) or dialing.done())
    (channel,) = asterisk.channels
    asterisk.answers(channel)
    return dialing, ledger


async def test_a_call_ends_when_the_minutes_are_used_up(
    asterisk: FakeAsterisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "BUDGET_CHECK_S", 0.05)
    dialing, _ = await in_the_last_second(asterisk, tmp_path)
    ending = await asyncio.wait_for(dialing, 5)
    assert "DIAL_DAILY_MINUTES" in str(ending)
    asterisk.assert_clean()


async def test_minutes_are_counted_also_when_the_ledger_can_not_be_read(
    asterisk: FakeAsterisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "BUDGET_CHECK_S", 0.05)
    dialing, ledger = await in_the_last_second(asterisk, tmp_path)
    ledger.write_text("damaged")
    with pytest.raises(SetupError, match="damaged"):
        await asyncio.wait_for(dialing, 5)
    asterisk.assert_clean()


async def test_a_ledger_that_another_process_holds_stops_no_conversation(
    asterisk: FakeAsterisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop, on which all calls depend, does not wait for it when a call begins, goes on or ends."""
    monkeypatch.setattr(outbound, "BUDGET_CHECK_S", 0.05)
    folder = tmp_path / "state" / "ari_app" / "dialled"
    folder.mkdir(parents=True)
    with (folder / "ledger.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        async with serving(asterisk) as served:
            placing = asyncio.create_task(served.app._calls.place("100"))
            await served.call("1700000000.1")
            assert not placing.done()
            fcntl.flock(file, fcntl.LOCK_UN)
            await placing
            await until(lambda: any(one.endswith("-c") for one in asterisk.channels))
            (callee,) = [one for one in asterisk.channels if one.endswith("-c")]
            fcntl.flock(file, fcntl.LOCK_EX)
            asterisk.refuses(callee, 486, 17)
            await until(lambda: callee not in asterisk.channels)
            await served.call("1700000000.2")
            fcntl.flock(file, fcntl.LOCK_UN)
            await until(lambda: json.loads((folder / "ledger.json").read_text())[0]["ended_at"] is not None)


async def test_a_chore_outlives_its_faults(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "CHORE_PAUSE_S", 0.01)
    turns = 0

    async def chore() -> None:
        nonlocal turns
        turns += 1
        if turns < 3:
            raise OSError("no descriptor")
        await asyncio.sleep(10)

    task = app_module.keep_up(chore, "sweeping up")
    await until(lambda: turns == 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [r.getMessage() for r in caplog.records] == 2 * ["sweeping up failed: it goes on in 0.01 s"]


# --- secrets -----------------------------------------------------------------------------------------


async def test_secrets_stay_out_of_the_log(asterisk: FakeAsterisk, caplog: pytest.LogCaptureFixture) -> None:
    """A greeted call, a refused one and a lost connection, with every line of ours and of the libraries."""
    caplog.set_level(logging.DEBUG)
    async with fake_openai(KEY) as openai:
        openai.routine["/v1/audio/speech"] = speech(b"\0\x10" * 4800)
        pipeline = {"MODE": "pipeline", "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": openai.url}
        async with serving(
            asterisk, GREETING="Hello.", MAX_CALLS="1", DEBUG="yes", RTP_HOST="127.0.0.1", **pipeline
        ) as served:
            await served.call("1700000000.1")
            media = media_of(asterisk, served.media_of("1700000000.1"))
            await until(lambda: any(any(a.payload) for a in media.hear()))
            asterisk.caller_arrives("1700000000.2", app="bot")
            await until(lambda: served.result("1700000000.2") == "busy")
            asterisk.drop_websockets()
            await until(lambda: asterisk.connections == 2)
            asterisk.hang_up("1700000000.1")
            await until(lambda: not asterisk.bridges)
    log = caplog.text
    assert "call ended: answered" in log
    password = base64.b64encode(f"{asterisk.user}:{asterisk.password}".encode()).decode()
    for secret in (KEY, asterisk.password, password):
        assert secret not in log


# --- admission ---------------------------------------------------------------------------------------


async def test_no_more_callers_than_ports(asterisk: FakeAsterisk) -> None:
    port = free_port()
    async with serving(asterisk, MAX_CALLS="9", RTP_PORTS=f"{port}-{port}") as served:
        await served.call("1700000000.1")
        asterisk.caller_arrives("1700000000.2", app="bot")
        await until(lambda: asterisk.channels["1700000000.2"].variables.get("ARI_APP_RESULT") == "busy")
        assert "1700000000.2" in asterisk.channels and len(served.app._calls) == 1


async def test_an_overloaded_machine_takes_no_call_until_it_has_recovered(
    asterisk: FakeAsterisk, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(asterisk, MAX_LAG_MS="50") as served:
        for _ in range(REMEMBERED):
            served.app._load.push(0.08)
        asterisk.caller_arrives("1700000000.1", app="bot")
        await until(lambda: asterisk.channels["1700000000.1"].variables.get("ARI_APP_RESULT") == "busy")
        assert "80 ms late (MAX_LAG_MS)" in caplog.text
        for _ in range(REMEMBERED):
            served.app._load.push(0.001)
        await served.call("1700000000.2")


async def test_what_resists_its_end_is_taken_down_later(
    asterisk: FakeAsterisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "SWEEP_EVERY_S", 0.05)
    async with serving(asterisk) as served:
        await served.call("1700000000.1")
        asterisk.script("DELETE", "/bridges", status=500, body='{"message": "a scripted refusal"}')
        asterisk.hang_up("1700000000.1")
        await until(lambda: not asterisk.bridges)
        await served.call("1700000000.2")
        await asyncio.sleep(0.2)
        assert served.bridge_of("1700000000.2"), "the living are left alone"
