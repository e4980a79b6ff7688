"""The client against a strict ARI peer: registration through every kind of loss, requests, errors, no leaks."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from ari_app.ari import room
from ari_app.ari.client import AriClient
from ari_app.ari.events import ChannelDtmfReceived, Event, StasisStart
from ari_app.errors import (
    AriConflict,
    AriError,
    AriFull,
    AriNotFound,
    AriReplaced,
    AriUnauthorized,
    AriUnreachable,
)
from tests.fakes.asterisk import FakeAsterisk, until

WAIT_S = 10.0


def make(asterisk: FakeAsterisk, on_event: Callable[[Event], None], *, retry_first: bool = True) -> AriClient:
    return AriClient(
        asterisk.url,
        asterisk.user,
        asterisk.password,
        "bot",
        on_event,
        retry_first=retry_first,
        heartbeat_s=0.2,
    )


@asynccontextmanager
async def registered(client: AriClient) -> AsyncIterator[asyncio.Task[None]]:
    async with client:
        task = asyncio.create_task(client.run())
        try:
            async with asyncio.timeout(WAIT_S):
                await client.registered.wait()
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def asterisk() -> AsyncIterator[FakeAsterisk]:
    async with FakeAsterisk() as fake:
        yield fake


@pytest.fixture
def events() -> list[Event]:
    return []


async def test_registers_filters_noise_and_hands_events_on(
    asterisk: FakeAsterisk, events: list[Event]
) -> None:
    async with registered(make(asterisk, events.append)):
        assert asterisk.filters["bot"] == {
            "disallowed": [{"type": "ChannelVarset"}, {"type": "ChannelDialplan"}]
        }
        asterisk.caller_arrives("1700000000.1", app="bot")
        asterisk.press("1700000000.1", "5")
        await until(lambda: len(events) == 2)
    assert isinstance(events[0], StasisStart)
    assert events[0].args == ("inbound", "100")
    assert events[1] == ChannelDtmfReceived("1700000000.1", "5", 100)


async def test_a_bad_event_or_a_failing_handler_costs_one_event(
    asterisk: FakeAsterisk, events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    def handler(event: Event) -> None:
        if not events:
            events.append(event)
            raise RuntimeError("a fault of one call")
        events.append(event)

    async with registered(make(asterisk, handler)) as task:
        asterisk.caller_arrives("1700000000.1", app="bot")
        asterisk.send("bot", "{ not json")
        asterisk.send("bot", {"type": "StasisStart", "channel": 7})
        asterisk.send("bot", {"type": "SomethingNew"})
        asterisk.press("1700000000.1", "5")
        await until(lambda: len(events) == 2)
        assert not task.done()
    assert isinstance(events[1], ChannelDtmfReceived)
    failed = [record for record in caplog.records if record.exc_info]
    assert [record.getMessage() for record in failed] == ["the handler of StasisStart failed"]
    dropped = [record.getMessage() for record in caplog.records if "dropped" in record.getMessage()]
    assert len(dropped) == 2


async def test_comes_back_after_losing_the_websocket(asterisk: FakeAsterisk, events: list[Event]) -> None:
    client = make(asterisk, events.append)
    async with registered(client):
        for connections in (2, 3):
            asterisk.drop_websockets()
            await until(lambda: not client.registered.is_set())
            await until(client.registered.is_set)
            assert asterisk.connections == connections
        asterisk.caller_arrives("1700000000.1", app="bot")
        await until(lambda: len(events) == 1)


async def test_notices_a_half_open_connection(asterisk: FakeAsterisk, events: list[Event]) -> None:
    client = make(asterisk, events.append)
    async with registered(client):
        asterisk.deaf = True
        await until(lambda: not client.registered.is_set())
        asterisk.deaf = False
        await until(client.registered.is_set)
        assert asterisk.connections >= 2


async def test_waits_for_asterisk_to_start(
    asterisk: FakeAsterisk, events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ari_app")
    await asterisk.stop()
    client = make(asterisk, events.append)
    async with client:
        task = asyncio.create_task(client.run())
        await until(lambda: "nobody answers" in caplog.text)
        asterisk.mode = "booting"
        await asterisk.start()
        await until(lambda: "still starting" in caplog.text)
        asterisk.mode = "not_booted"
        await until(lambda: "starting or shutting down" in caplog.text)
        assert asterisk.connections == 0
        assert not client.registered.is_set()
        asterisk.mode = "up"
        await until(client.registered.is_set)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 3, "each reason is logged once"
    assert "is registered at" in caplog.records[-1].getMessage()


async def test_survives_a_restart_of_asterisk(asterisk: FakeAsterisk, events: list[Event]) -> None:
    client = make(asterisk, events.append)
    async with registered(client):
        await asterisk.stop()
        await until(lambda: not client.registered.is_set())
        await asterisk.start()
        await until(client.registered.is_set)


async def test_wrong_password_at_first_is_raised_at_once(asterisk: FakeAsterisk, events: list[Event]) -> None:
    async with AriClient(asterisk.url, asterisk.user, "wr0ng", "bot", events.append) as client:
        with pytest.raises(AriUnauthorized, match="set ARI_USERNAME and ARI_PASSWORD") as raised:
            await client.run()
    assert "wr0ng" not in str(raised.value)


async def test_wrong_password_later_is_retried(asterisk: FakeAsterisk, events: list[Event]) -> None:
    client = make(asterisk, events.append)
    async with registered(client) as task:
        asterisk.mode = "unauthorized"
        asterisk.drop_websockets()
        await until(lambda: not client.registered.is_set())
        await asyncio.sleep(0.3)
        assert not task.done()
        asterisk.mode = "up"
        await until(client.registered.is_set)


@pytest.mark.parametrize("mode", ["away", "booting", "not_booted"])
async def test_a_short_lived_process_gives_up_at_once(
    asterisk: FakeAsterisk, events: list[Event], mode: str
) -> None:
    if mode == "away":
        await asterisk.stop()
    asterisk.mode = mode
    async with make(asterisk, events.append, retry_first=False) as client:
        with pytest.raises(AriUnreachable) as raised:
            await client.run()
    assert str(raised.value).count("\n") == 0
    assert "Asterisk" in str(raised.value)


async def test_a_short_lived_process_comes_back_once_it_was_registered(
    asterisk: FakeAsterisk, events: list[Event]
) -> None:
    client = make(asterisk, events.append, retry_first=False)
    async with registered(client):
        await asterisk.stop()
        await until(lambda: not client.registered.is_set())
        await asterisk.start()
        await until(client.registered.is_set)


async def test_replaced_by_another_process(asterisk: FakeAsterisk, events: list[Event]) -> None:
    async with registered(make(asterisk, events.append)) as first, registered(make(asterisk, events.append)):
        with pytest.raises(AriReplaced, match="set ARI_APP to another name"):
            await asyncio.wait_for(first, WAIT_S)


async def test_on_connected_runs_before_events_and_its_failure_is_a_failed_connection(
    asterisk: FakeAsterisk,
) -> None:
    order: list[str] = []

    async def on_connected(client: AriClient, before: object) -> None:
        asterisk.caller_arrives(f"1700000000.{len(order)}", app="bot")
        await asyncio.sleep(0.05)
        order.append("connected")
        if len(order) == 1:
            raise AriError("list the channels", 500, "broken")

    client = AriClient(
        asterisk.url,
        asterisk.user,
        asterisk.password,
        "bot",
        lambda event: order.append(type(event).__name__),
        on_connected=on_connected,
    )
    async with registered(client):
        await until(lambda: len(order) == 3)
    assert order == ["connected", "connected", "StasisStart"]
    assert asterisk.connections == 2


def rtp_conf(first: int, last: int) -> dict[str, str]:
    names = {"rtpstart": first, "rtpend": last}
    return {f"AST_CONFIG(rtp.conf,general,{name})": str(port) for name, port in names.items()}


async def test_asterisk_is_not_asked_for_its_last_rtp_ports(
    asterisk: FakeAsterisk, events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    async with registered(client := make(asterisk, events.append)):
        asterisk.caller_arrives(caller := "1700000000.1", app="bot")
        assert len(asterisk.channels) == 1
        asterisk.rtp_conf = rtp_conf(10000, 10002)  # two streams: the caller's and one media channel's
        opened = await asyncio.gather(
            *(client.rest.external_media(name, "127.0.0.1:40000", beside=caller) for name in ("m1", "m2")),
            return_exceptions=True,
        )
        assert len(asterisk.channels) == 2
        (refused,) = [result for result in opened if isinstance(result, AriFull)]
        assert "pairs of RTP ports are taken" in str(refused)
        asked = len(asterisk.asked("GET", "/variable"))
        with pytest.raises(AriFull):
            await client.rest.external_media("m3", "127.0.0.1:40000", beside=caller)
        assert len(asterisk.asked("GET", "/variable")) == asked  # not for each call
    assert "func_config" not in caplog.text


async def test_an_asterisk_that_does_not_tell_its_ports_is_believed_once(
    asterisk: FakeAsterisk, events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    async with registered(client := make(asterisk, events.append)):
        asterisk.caller_arrives(caller := "1700000000.1", app="bot")
        for name in ("m1", "m2"):
            await client.rest.external_media(name, "127.0.0.1:40000", beside=caller)
    assert caplog.text.count("func_config") == 1


async def test_an_answer_that_never_comes_costs_its_own_call_and_no_other(
    asterisk: FakeAsterisk, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "ANSWER_S", 0.3)
    async with registered(client := make(asterisk, events.append)):
        stuck, other = "1700000000.1", "1700000000.2"
        for caller in (stuck, other):
            asterisk.caller_arrives(caller, app="bot")
        asterisk.rtp_conf = rtp_conf(10000, 10099)
        asterisk.stuck = {("GET", f"/channels/{stuck}/variable")}
        first = asyncio.create_task(client.rest.external_media("m1", "127.0.0.1:40000", beside=stuck))
        await asyncio.sleep(0.01)
        await client.rest.external_media("m2", "127.0.0.1:40000", beside=other)
        assert not first.done()
        with pytest.raises(AriError, match="which RTP ports it has"):
            await first
        asterisk.stuck = {("GET", "/channels")}
        with pytest.raises(AriError, match="which RTP ports are taken"):
            await client.rest.external_media("m3", "127.0.0.1:40000", beside=other)


async def test_who_waits_for_another_media_channel_does_not_wait_for_long(
    asterisk: FakeAsterisk, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "PATIENCE_S", 0.1)
    async with registered(client := make(asterisk, events.append)):
        asterisk.caller_arrives(caller := "1700000000.1", app="bot")
        held = asterisk.hold("POST", "/channels/externalMedia")
        first = asyncio.create_task(client.rest.external_media("m1", "127.0.0.1:40000", beside=caller))
        await held.reached.wait()
        with pytest.raises(AriError, match="the media channel of another call"):
            await client.rest.external_media("m2", "127.0.0.1:40000", beside=caller)
        assert len(asterisk.channels) == 1
        held.go.set()
        await first
        await client.rest.external_media("m2", "127.0.0.1:40000", beside=caller)


async def test_requests_of_a_whole_call(asterisk: FakeAsterisk, events: list[Event]) -> None:
    async with registered(client := make(asterisk, events.append)):
        rest = client.rest
        assert await rest.version() == "22.10.1"
        await rest.create_bridge("b1", "bot")
        host, port = await rest.external_media("m1", "127.0.0.1:40000")
        assert (host, port) == asterisk.channels["m1"].rtp.getsockname()  # type: ignore[union-attr]
        await rest.originate(
            "c1",
            'PJSIP/100@trunk?x=1&y="z"',
            app_args="outbound,1",
            caller_id='"Bob & Co" <+1555>',
            timeout_s=30,
            variables={"PJSIP_HEADER(add,X-My)": "42 & más"},
        )
        asked = asterisk.asked("POST", "/channels")[-1]
        assert asked == {
            "endpoint": 'PJSIP/100@trunk?x=1&y="z"',
            "app": "bot",
            "appArgs": "outbound,1",
            "callerId": '"Bob & Co" <+1555>',
            "timeout": "30",
            "channelId": "c1",
        }
        assert asterisk.channels["c1"].variables == {"PJSIP_HEADER(add,X-My)": "42 & más"}
        asterisk.answers("c1")
        await rest.add_channels("b1", ["c1", "m1"])
        assert (await rest.list_bridges())[0].channel_ids == ("c1", "m1")
        assert {channel.id for channel in await rest.list_channels()} == {"c1", "m1"}
        assert (await rest.list_channels())[0].in_stasis("bot")
        for _ in range(2):  # gone already is as good
            await rest.hangup("c1", "busy")
            await rest.hangup("m1")
            await rest.delete_bridge("b1")
        assert asterisk.asked("DELETE", "/channels/c1")[0] == {"reason": "busy"}
        asterisk.assert_clean()


async def test_inbound_requests(asterisk: FakeAsterisk, events: list[Event]) -> None:
    async with registered(client := make(asterisk, events.append)):
        asterisk.caller_arrives("1700000000.1", app="bot")
        await client.rest.answer("1700000000.1")
        await client.rest.set_variable("1700000000.1", "X", "a=b & c")
        await client.rest.hand_back("1700000000.1", "failed")
        caller = asterisk.channels["1700000000.1"]
        assert (caller.answered, caller.app) == (True, "")
        assert caller.variables == {"X": "a=b & c", "ARI_APP_RESULT": "failed"}


async def test_errors_say_what_was_attempted(asterisk: FakeAsterisk, events: list[Event]) -> None:
    async with registered(client := make(asterisk, events.append)):
        rest = client.rest
        asterisk.unknown_endpoints = {"PJSIP/1@nowhere"}
        asterisk.caller_arrives("1700000000.1", app="")
        stale = '{"message":"Channel with given unique ID already exists"}'
        asterisk.script("POST", "/channels", status=409, body=stale)
        cases: list[tuple[Awaitable[object], type[AriError], str]] = [
            (
                rest.originate("c1", "PJSIP/+15551234567@gone", timeout_s=5),
                AriNotFound,
                "could not dial PJSIP/+********567@gone (HTTP 409): ",
            ),
            (rest.originate("c2", "PJSIP/1@nowhere", timeout_s=5), AriNotFound, "check DIAL_ENDPOINT"),
            (rest.answer("none"), AriNotFound, "could not answer channel none (HTTP 404): Channel not found"),
            (rest.answer("1700000000.1"), AriConflict, "Channel not in Stasis application"),
            (rest.add_channels("none", ["1700000000.1"]), AriNotFound, "Bridge not found"),
        ]
        for request, kind, words in cases:
            with pytest.raises(kind) as raised:
                await request
            assert words in str(raised.value)
        asterisk.script("GET", "/channels", status=200, body="[{}]")
        with pytest.raises(AriError, match="could not list the channels"):
            await rest.list_channels()
        asterisk.script("GET", "/channels", status=200, body="{ not json")
        with pytest.raises(AriError, match="the reply is Expecting"):
            await rest.list_channels()
        asterisk.script("GET", "/bridges", status=200, body="7")
        with pytest.raises(AriError, match="the reply must be a list, not int"):
            await rest.list_bridges()
        asterisk.script("GET", "/bridges", status=200, body='[{"id": "b1"}]')
        with pytest.raises(AriError, match=r"bridge.channels must be a list"):
            await rest.list_bridges()
        asterisk.script("POST", "/channels/externalMedia", status=200, body='{"id": "m1"}')
        with pytest.raises(AriError, match="did not say where it listens"):
            await rest.external_media("m1", "127.0.0.1:1")


@pytest.mark.parametrize("body", [" " * 9 * 2**20, "[" * 100_000, '[{"id":' * 20_000])
async def test_a_reply_without_measure_costs_its_request(
    asterisk: FakeAsterisk, events: list[Event], body: str
) -> None:
    async with registered(client := make(asterisk, events.append)):
        asterisk.script("GET", "/channels", status=200, body=body)
        with pytest.raises(AriError, match="could not list the channels"):
            await client.rest.list_channels()
        asterisk.script("GET", "/channels", status=500, body=body)
        with pytest.raises(AriError, match="could not list the channels"):
            await client.rest.list_channels()
        assert await client.rest.list_channels() == []


@pytest.mark.parametrize("body", ["[" * 100_000, "[]", "7", '{"apis": 7}', '{"apis": [7]}', " " * 9 * 2**20])
async def test_an_api_description_that_is_none(
    asterisk: FakeAsterisk, events: list[Event], body: str
) -> None:
    asterisk.script("GET", "/api-docs/resources.json", status=200, body=body)
    async with make(asterisk, events.append, retry_first=False) as client:
        with pytest.raises(AriError, match="could not"):
            await asyncio.wait_for(client.run(), WAIT_S)


@pytest.mark.parametrize("result", ["", 'x" = "x', "${SHELL(id)}", "a\nb", "a" * 41])
async def test_the_dialplan_gets_a_word_and_nothing_that_it_would_carry_out(
    asterisk: FakeAsterisk, events: list[Event], result: str
) -> None:
    async with registered(client := make(asterisk, events.append)):
        asterisk.caller_arrives("1700000000.1", app="bot")
        with pytest.raises(ValueError, match="not a word"):
            await client.rest.hand_back("1700000000.1", result)
        assert asterisk.channels["1700000000.1"].variables == {}


async def test_an_event_of_5_mb_costs_a_connection_and_no_more(
    asterisk: FakeAsterisk, events: list[Event]
) -> None:
    async with registered(make(asterisk, events.append)):
        asterisk.send("bot", '{"type": "StasisStart", "x": "' + "x" * 5 * 2**20 + '"}')
        await until(lambda: not asterisk.is_registered("bot"))
        await until(lambda: asterisk.is_registered("bot"))


async def test_requests_without_a_connection(asterisk: FakeAsterisk, events: list[Event]) -> None:
    client = make(asterisk, events.append)
    async with client:
        with pytest.raises(AriUnreachable, match="no connection to Asterisk yet"):
            await client.rest.answer("1")
        await client.rest.open()
        await asterisk.stop()
        with pytest.raises(AriUnreachable, match="check ARI_URL"):
            await client.rest.answer("1")
    with pytest.raises(AriUnreachable, match="has been closed"):
        await client.rest.answer("1")


async def test_nothing_is_left_open_after_failures(asterisk: FakeAsterisk, events: list[Event]) -> None:
    """An unclosed session, connection or websocket is a ResourceWarning, and that an error."""
    tasks = asyncio.all_tasks()
    for mode in ("unauthorized", "booting"):
        asterisk.mode = mode
        async with make(asterisk, events.append, retry_first=False) as client:
            with pytest.raises(AriError):
                await client.run()
        assert repr(client.rest).find(asterisk.password) == -1
    asterisk.mode = "up"
    async with registered(make(asterisk, events.append)):
        pass
    gc.collect()
    await until(
        lambda: asyncio.all_tasks() <= tasks | {t for t in asyncio.all_tasks() if "Server" in repr(t)}
    )
