"""The composition root and its calls against a strict ARI peer on loopback, in echo mode with real UDP sockets."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from ari_app import app as app_module
from ari_app.app import App
from ari_app.ari.outcome import Ending, Outcome
from ari_app.config import Config, load
from ari_app.demo.measure import udp_sockets
from ari_app.errors import AriReplaced, AriUnauthorized, AriUnreachable, ConfigError, SetupError
from tests.fakes.asterisk import FakeAsterisk, until

NAME = "bot"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(app_module, "DRAIN_S", 0.3)
    return tmp_path / "state"


def config(asterisk: FakeAsterisk, **extra: str) -> Config:
    settings = {"ARI_URL": asterisk.url, "ARI_USERNAME": asterisk.user, "ARI_PASSWORD": asterisk.password}
    return load({}, {**settings, "ARI_APP": NAME, "MODE": "echo", **extra}, {})


class Serving:
    """A running `serve`."""

    def __init__(self, settings: Config) -> None:
        self.ready, self.stop = asyncio.Event(), asyncio.Event()
        self.app = App(settings, command="serve")
        self.task = asyncio.create_task(self.app.serve(ready=self.ready.set, stop=self.stop))


@asynccontextmanager
async def serving(asterisk: FakeAsterisk, **extra: str) -> AsyncIterator[Serving]:
    """Serve until the block ends; afterwards nothing of it is left in this process."""
    tasks_before, sockets_before = asyncio.all_tasks(), udp_sockets_here()
    server = Serving(config(asterisk, **extra))
    try:
        async with asyncio.timeout(10):
            await asyncio.wait({server.task, wait_for(server.ready)}, return_when=asyncio.FIRST_COMPLETED)
        yield server
    finally:
        server.stop.set()
        with suppress(AriReplaced):
            await asyncio.wait_for(server.task, 15)
    await until(lambda: {t for t in asyncio.all_tasks() - tasks_before if "ari_app" in str(t)} == set())
    assert udp_sockets_here() == sockets_before


def wait_for(event: asyncio.Event) -> asyncio.Task[bool]:
    return asyncio.create_task(event.wait())


def udp_sockets_here() -> int:
    return udp_sockets(os.getpid())


async def talking(asterisk: FakeAsterisk, channel_id: str) -> None:
    """A caller arrives and is in conversation."""
    asterisk.caller_arrives(channel_id, app=NAME)
    await until(
        lambda: any(channel_id in members and len(members) == 2 for members in asterisk.bridges.values())
    )


def handed_back(asterisk: FakeAsterisk, result: str) -> bool:
    asked = asterisk.asked("POST", "/variable")
    return any(query.get("variable") == "ARI_APP_RESULT" and query.get("value") == result for query in asked)


async def test_a_call_lives_and_leaves_nothing() -> None:
    async with FakeAsterisk() as asterisk, serving(asterisk):
        await talking(asterisk, "1.1")
        assert asterisk.channels["1.1"].state == "Up"
        asterisk.hang_up("1.1")
        await until(lambda: not asterisk.channels and not asterisk.bridges)


async def test_the_caller_may_hang_up_at_any_moment_of_the_set_up() -> None:
    async with FakeAsterisk() as asterisk, serving(asterisk) as server:
        for number, delay_ms in enumerate((0, 1, 2, 4, 6, 8, 12, 20, 40)):
            channel_id = f"2.{number}"
            asterisk.caller_arrives(channel_id, app=NAME)
            await asyncio.sleep(delay_ms / 1000)
            asterisk.hang_up(channel_id)
            await until(lambda: not asterisk.channels and not asterisk.bridges and not server.app._calls)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/bridges"),
        ("POST", "/channels/externalMedia"),
        ("POST", "/channels/1.1/answer"),
        ("POST", "/bridges/ari_app"),
    ],
)
async def test_a_step_that_fails_gives_the_caller_back(method: str, path: str) -> None:
    async with FakeAsterisk() as asterisk, serving(asterisk) as server:
        asterisk.script(method, path, status=500, body='{"message":"Internal error"}')
        asterisk.caller_arrives("1.1", app=NAME)
        await until(lambda: handed_back(asterisk, "failed"))
        await until(lambda: not asterisk.bridges and not server.app._calls)
        asterisk.assert_clean("1.1")


async def test_calls_do_not_touch_each_other_and_the_limit_holds() -> None:
    async with FakeAsterisk() as asterisk, serving(asterisk, MAX_CALLS="2") as server:
        await talking(asterisk, "1.1")
        await talking(asterisk, "1.2")
        asterisk.caller_arrives("1.3", app=NAME)
        await until(lambda: handed_back(asterisk, "busy"))
        assert len(server.app._calls) == len(asterisk.bridges) == 2
        asterisk.hang_up("1.1")
        await until(lambda: len(asterisk.bridges) == 1 and len(server.app._calls) == 1)
        await talking(asterisk, "1.4")
        assert len(asterisk.bridges) == 2


async def test_a_lost_websocket_ends_only_the_calls_that_ended_meanwhile() -> None:
    async with FakeAsterisk() as asterisk, serving(asterisk) as server:
        await talking(asterisk, "1.1")
        await talking(asterisk, "1.2")
        connections = asterisk.connections
        asterisk.drop_websockets()
        asterisk.vanish("1.1")
        await until(lambda: asterisk.connections > connections and len(server.app._calls) == 1)
        await until(lambda: len(asterisk.bridges) == 1)
        assert any("1.2" in members for members in asterisk.bridges.values())


async def test_a_stop_refuses_newcomers_and_then_hangs_up() -> None:
    async with FakeAsterisk() as asterisk, serving(asterisk) as server:
        await talking(asterisk, "1.1")
        server.stop.set()
        await asyncio.sleep(0.1)
        asterisk.caller_arrives("1.2", app=NAME)
        await until(lambda: handed_back(asterisk, "busy"))
        assert "1.1" in asterisk.channels, "the one in conversation has a moment left"
        await asyncio.wait_for(server.task, 15)
        asterisk.assert_clean("1.2")


async def test_a_second_server_of_the_name_is_refused_on_this_host() -> None:
    async with FakeAsterisk() as asterisk, serving(asterisk):
        with pytest.raises(ConfigError, match="ARI_APP"):
            await App(config(asterisk), command="serve").serve(ready=lambda: None, stop=asyncio.Event())


async def test_another_host_that_takes_the_name_over_ends_this_server() -> None:
    async with FakeAsterisk() as asterisk, serving(asterisk) as server:
        asterisk.send(NAME, {"type": "ApplicationReplaced"})
        with pytest.raises(AriReplaced, match="another process"):
            await asyncio.wait_for(asyncio.shield(server.task), 15)


async def test_a_wrong_password_and_a_silent_asterisk_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "FIRST_CONNECTION_S", 0.5)
    async with FakeAsterisk() as asterisk:
        wrong = config(asterisk, ARI_PASSWORD="wrong")
        with pytest.raises(AriUnauthorized, match="ARI_PASSWORD"):
            await App(wrong, command="serve").serve(ready=lambda: None, stop=asyncio.Event())
    with pytest.raises(AriUnreachable, match="ARI_URL"):
        await App(config(asterisk), command="serve").serve(ready=lambda: None, stop=asyncio.Event())
    with pytest.raises(AriUnreachable, match="ARI_URL"):
        await dial(asterisk)


async def dial(asterisk: FakeAsterisk, number: str = "100", hang_up: asyncio.Event | None = None) -> Ending:
    app = App(config(asterisk), command="dial")
    return await app.dial(number, observer=lambda what: None, hang_up=hang_up or asyncio.Event())


def dialed(asterisk: FakeAsterisk) -> str | None:
    return next((id for id in asterisk.channels if id.endswith("-c")), None)


async def test_an_outbound_call_rings_is_answered_and_ends() -> None:
    async with FakeAsterisk() as asterisk:
        task = asyncio.create_task(dial(asterisk))
        await until(lambda: dialed(asterisk) is not None)
        channel_id = dialed(asterisk)
        assert channel_id is not None
        asterisk.rings(channel_id)
        asterisk.answers(channel_id)
        await until(lambda: any(len(members) == 2 for members in asterisk.bridges.values()))
        asterisk.hang_up(channel_id)
        assert (await asyncio.wait_for(task, 10)).outcome is Outcome.ANSWERED
        asterisk.assert_clean()


async def test_nothing_is_dialed_once_hanging_up_is_wanted() -> None:
    hang_up = asyncio.Event()
    hang_up.set()
    async with FakeAsterisk() as asterisk:
        assert (await dial(asterisk, hang_up=hang_up)).outcome is Outcome.CANCELLED
        assert asterisk.asked("POST", "/channels") == []


async def test_a_cancelled_dial_takes_its_call_down() -> None:
    async with FakeAsterisk() as asterisk:
        task = asyncio.create_task(dial(asterisk))
        await until(lambda: dialed(asterisk) is not None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        asterisk.assert_clean()


@pytest.mark.parametrize("number", ["", "abc", "1@2", "1/2", "1&2", "100,1", "1" * 33, "++1"])
async def test_what_is_no_number_is_refused_before_anything_happens(number: str) -> None:
    with pytest.raises(ConfigError, match="not a number"):
        await dial(FakeAsterisk(), number)


async def test_a_state_folder_that_cannot_be_written_is_named(state: Path) -> None:
    state.write_text("a file")
    async with FakeAsterisk() as asterisk:
        with pytest.raises(SetupError, match="instances"):
            await dial(asterisk)


async def test_a_recording_that_cannot_be_made_costs_the_recording_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    settings = {"SAVE_RECORDINGS": "yes", "RECORDINGS_DIR": str(tmp_path / "file")}
    async with FakeAsterisk() as asterisk, serving(asterisk, **settings):
        await talking(asterisk, "1.1")
        await until(lambda: "not recorded" in caplog.text)
        asterisk.hang_up("1.1")
        await until(lambda: not asterisk.bridges)


async def test_secrets_are_in_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with FakeAsterisk() as asterisk, serving(asterisk):
            await talking(asterisk, "1.1")
            asterisk.hang_up("1.1")
            await until(lambda: not asterisk.bridges)
    assert asterisk.password not in caplog.text
    assert "call ended" in caplog.text
