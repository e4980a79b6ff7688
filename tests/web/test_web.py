"""Console, API and metrics of a serving application, over HTTP, with callers of a strict ARI peer."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ari_app import line
from ari_app.app import App
from ari_app.config import load
from ari_app.errors import SetupError
from ari_app.record import reader
from ari_app.web import access
from ari_app.web.access import token_of
from ari_app.web.description import description
from tests.fakes.asterisk import FakeAsterisk, until
from tests.fakes.call_bench import free_port, nothing_leaks

TOKEN = "t0ken-of-the-test-0123456789"
CALLER = "1700000000.1"


class Operator:
    """A serving application, and somebody with HTTP who looks at it."""

    def __init__(self, asterisk: FakeAsterisk, http: aiohttp.ClientSession, app: App) -> None:
        self.asterisk = asterisk
        self.http = http
        self.app = app

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        return await self._ask("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        return await self._ask("POST", path, json=body, **options)

    async def _ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        options.setdefault("headers", {"Authorization": f"Bearer {TOKEN}"})
        async with self.http.request(method, path, **options) as answer:
            text = await answer.text()
            is_json = answer.content_type == "application/json"
            return answer.status, json.loads(text) if is_json else text

    async def caller(self, channel_id: str = CALLER, **about: str) -> str:
        """A caller is talked to; returns the call's id."""
        self.asterisk.caller_arrives(channel_id, app="bot", **about)
        found: list[str] = []

        async def talking() -> bool:
            _, answer = await self.get("/api/calls")
            found[:] = [call["call"] for call in answer["calls"] if call.get("stage") == "talking"]
            return bool(found)

        async with asyncio.timeout(5):
            while not await talking():
                await asyncio.sleep(0.02)
        return found[0]


@asynccontextmanager
async def operator(tmp_path: Path, **settings: str) -> AsyncIterator[Operator]:
    port, stop, ready = free_port(), asyncio.Event(), asyncio.Event()
    async with (
        nothing_leaks(),
        FakeAsterisk() as asterisk,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", cookie_jar=aiohttp.CookieJar(unsafe=True)) as http,
    ):
        config = load(
            {},
            {
                "ARI_URL": asterisk.url,
                "ARI_USERNAME": asterisk.user,
                "ARI_PASSWORD": asterisk.password,
                "ARI_APP": "bot",
                "MODE": "echo",
                "DRAIN_SECONDS": "0",
                "API_TOKEN": TOKEN,
                "WEB_PORT": str(port),
                "RECORDINGS_DIR": str(tmp_path / "recordings"),
                **settings,
            },
            {},
        )
        app = App(config, command="serve")
        task = asyncio.create_task(app.serve(ready=ready.set, stop=stop))
        try:
            await until(lambda: ready.is_set() or task.done())
            yield Operator(asterisk, http, app)
        finally:
            stop.set()
            await asyncio.wait_for(task, 10)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(access, "WRONG_TOKEN_S", 0.01)


# --- who may come in ---------------------------------------------------------------------------------


async def test_only_the_token_opens(tmp_path: Path) -> None:
    async with operator(tmp_path) as who:
        paths = ["/metrics", "/", "/console.js", "/api/none", *description()["paths"]]
        for path in paths:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
                status, answer = await who.get(path, headers=headers)
                assert status == 401 and "token" in answer["error"], path
        assert (await who.get("/live", headers={}))[0] == 200
        assert (await who.get("/ready", headers={}))[0] == 200
        assert (await who.get("/metrics"))[0] == 200


async def test_a_browser_logs_in_and_out(tmp_path: Path) -> None:
    async with operator(tmp_path) as who:
        page = {"Accept": "text/html"}
        async with who.http.get("/", headers=page, allow_redirects=False) as answer:
            assert answer.status == 303 and answer.headers["Location"] == "/login"
        assert "API token" in (await who.get("/login", headers={}))[1]
        assert (await who.post("/login", {"token": "wrong"}, headers={}))[0] == 401
        for odd in (["token"], {"token": 5}, {}, None):
            assert (await who.post("/login", odd, headers={}))[0] == 401
        async with who.http.post("/login", json={"token": TOKEN}) as answer:
            assert answer.status == 200
            cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
        assert "console.js" in (await who.get("/", headers=page))[1]
        assert (await who.get("/api/calls", headers={}))[0] == 200
        assert (await who.post("/api/calls", {"number": "1"}, headers={}))[0] == 401, "another site's form"
        ours = {"X-Requested-With": "console"}
        assert (await who.post("/api/calls", {"number": "1"}, headers=ours))[0] == 422
        assert (await who.post("/logout", {}, headers=ours))[0] == 200
        assert (await who.get("/api/calls", headers={}))[0] == 401


async def test_pages_bring_no_script_of_others(tmp_path: Path) -> None:
    async with operator(tmp_path) as who:
        for path in ("/login", "/api/calls", "/"):
            async with who.http.get(path, headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy and "unsafe" not in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                text = await answer.text()
            assert not re.search(r"<script(?![^>]*\bsrc=\"/)|\son\w+=|style=|https?://", text), path


def test_the_token_is_made_once_and_kept_to_ourselves(tmp_path: Path) -> None:
    token, path = token_of("", tmp_path / "state")
    assert path is not None and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(token) > 30 and token_of("", tmp_path / "state") == (token, path)
    assert token_of("configured-elsewhere", tmp_path) == ("configured-elsewhere", None)
    path.write_text("\n")
    with pytest.raises(SetupError, match="delete it"):
        token_of("", tmp_path / "state")


async def test_the_log_says_where_the_token_is_and_not_what(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with operator(tmp_path, API_TOKEN=""):
            pass
    (path,) = (tmp_path / "state").rglob("api_token")
    assert str(path) in caplog.text and path.read_text().strip() not in caplog.text


# --- calls -------------------------------------------------------------------------------------------


async def test_a_call_is_seen_from_begin_to_end(tmp_path: Path) -> None:
    async with operator(tmp_path) as who, following(who) as seen:
        await until(lambda: bool(seen))
        assert seen[0] == {"type": "calls", "calls": []}
        call_id = await who.caller()
        status, call = await who.get(f"/api/calls/{call_id}")
        assert status == 200 and call["stage"] == "talking" and call["recording"] == "off"
        assert call["from"] == "100" and call["direction"] == "inbound"
        await until(lambda: any(message["type"] == "levels" for message in seen))
        levels = next(message["levels"] for message in seen if message["type"] == "levels")
        assert levels == {call_id: {"caller": -90, "bot": -90}}
        assert (await who.post(f"/api/calls/{call_id}/hangup"))[0] == 200
        await until(lambda: seen[-1].get("summary", {}).get("stage") == "over")
        assert "hung up by an operator" in seen[-1]["summary"]["ending"]
        _, answer = await who.get("/api/calls")
        assert [call["stage"] for call in answer["calls"]] == ["over"]
        assert answer["calls"][0]["recording"] == "off"
        assert (await who.post(f"/api/calls/{call_id}/hangup"))[0] == 404
        assert (await who.get(f"/api/calls/{call_id}"))[1]["events"] == []


@asynccontextmanager
async def following(who: Operator) -> AsyncIterator[list[dict[str, Any]]]:
    """What the event stream says."""
    seen: list[dict[str, Any]] = []

    async def follow() -> None:
        async with who.http.get("/api/events", headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
            assert answer.content_type == "text/event-stream"
            async for line in answer.content:
                if line.startswith(b"data: "):
                    seen.append(json.loads(line[6:]))

    task = asyncio.create_task(follow())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_levels_come_by_the_clock_however_much_happens(tmp_path: Path) -> None:
    async with operator(tmp_path) as who, following(who) as seen:
        await until(lambda: bool(seen))
        call_id = await who.caller()

        async def news() -> None:
            while True:
                who.app._live.changed(call_id)
                await asyncio.sleep(0.01)

        task = asyncio.create_task(news())
        try:
            await until(lambda: sum(message["type"] == "levels" for message in seen) >= 3)
        finally:
            task.cancel()
        assert sum(message["type"] == "call" for message in seen) > 20
        who.asterisk.hang_up(CALLER)


async def test_the_log_says_who_did_what(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"SAVE_RECORDINGS": "yes", "RECORDINGS_MIN_FREE_MB": "0", "DIAL_ALLOW": "+4420"}
    caplog.set_level(logging.INFO)
    async with operator(tmp_path, **settings) as who:
        assert (await who.post("/login", {"token": TOKEN}, headers={}))[0] == 200
        (session,) = re.findall(r"(session \w+) at 127.0.0.1 logged in", caplog.text)
        ours = {"X-Requested-With": "console"}
        call_id = await who.caller(number="+4930123456")
        path = f"/api/calls/{call_id}"
        await who.post(f"{path}/recording", {"paused": True}, headers=ours)
        await who.post(f"{path}/recording", {"paused": False})
        await who.post(f"{path}/transfer", {"extension": "5551234"}, headers=ours)
        await until(lambda: not who.asterisk.channels[CALLER].app)
        who.asterisk.hang_up(CALLER)
        _, answer = await who.post("/api/calls", {"number": "+442071234567"}, headers=ours)
        placed = answer["call"]
        await until(lambda: bool(who.asterisk.channels))
        assert (await who.post(f"/api/calls/{placed}/hangup"))[0] == 200
        await until(lambda: not who.asterisk.channels)
        (channel,) = who.asterisk.asked("POST", "/channels")[-1:]
        await who.post("/logout", {}, headers=ours)
    for wanted in (
        f"the recording of call {call_id} is paused by {session} at 127.0.0.1",
        f"the recording of call {call_id} is resumed by a program with the token at 127.0.0.1",
        f"call {call_id} is transferred to ",
        f"call {placed} is placed by {session} at 127.0.0.1",
        f"call {placed} is hung up by a program with the token at 127.0.0.1",
        f"SIP Call-ID {channel['channelId']}@127.0.0.1",
        f"{session} logged out",
    ):
        assert wanted in caplog.text
    ours_only = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("ari_app"))
    assert "-00000001)" in ours_only, "the channel's name, as in Asterisk's log"
    for secret in ("2071234567", "30123456", "5551234", TOKEN):
        assert secret not in ours_only


async def test_a_ledger_that_can_t_be_kept_is_no_fault_of_the_request(tmp_path: Path) -> None:
    async with operator(tmp_path, DIAL_ALLOW="+4420") as who:
        (tmp_path / "state/ari_app/dialled").mkdir(parents=True, exist_ok=True)
        (tmp_path / "state/ari_app/dialled/ledger.json").write_text("damaged")
        status, answer = await who.post("/api/calls", {"number": "+442071234567"})
        assert status == 503 and "damaged" in answer["error"]


async def test_a_caller_is_transferred(tmp_path: Path) -> None:
    async with operator(tmp_path) as who:
        call_id = await who.caller()
        path = f"/api/calls/{call_id}/transfer"
        for odd in ("", "12,dial", "${X}", "1 2", "٣", "1" * 33):
            assert (await who.post(path, {"extension": odd}))[0] == 400
        assert (await who.post(path, {"extension": "*42"}))[0] == 200
        channel = who.asterisk.channels[CALLER]
        await until(lambda: not channel.app)
        assert channel.variables["ARI_APP_RESULT"] == "transfer"
        assert channel.variables["ARI_APP_TRANSFER"] == "*42"
        who.asterisk.hang_up(CALLER)


async def test_a_recording_is_paused(tmp_path: Path) -> None:
    async with operator(tmp_path, SAVE_RECORDINGS="yes", RECORDINGS_MIN_FREE_MB="0") as who:
        call_id = await who.caller()
        path = f"/api/calls/{call_id}/recording"
        assert (await who.post(path, {"paused": "yes"}))[0] == 400
        async with following(who) as seen:
            await until(lambda: bool(seen))
            assert (await who.post(path, {"paused": True}))[0] == 200
            await until(lambda: seen[-1].get("summary", {}).get("recording") == "paused")
        assert (await who.get(f"/api/calls/{call_id}"))[1]["recording"] == "paused"
        assert (await who.post(path, {"paused": False}))[0] == 200
        assert (await who.get(f"/api/calls/{call_id}"))[1]["recording"] == "on"
        await who.post(f"/api/calls/{call_id}/hangup")
        await until(lambda: '"ended"' in "".join(p.read_text() for p in tmp_path.rglob("events.jsonl")))
        _, answer = await who.get("/api/recordings")
        (recording,) = answer["recordings"]
        assert recording["call"] == call_id and recording["outcome"] == "answered"
        _, log = await who.get(f"/api/recordings/{recording['name']}")
        names = [event["event"] for event in log["events"]]
        assert names == ["call", "recording_paused", "recording_resumed", "ended"]
        _, answer = await who.get("/api/recordings?limit=1")
        assert [call["call"] for call in answer["recordings"]] == [call_id]
        assert (await who.get(f"/api/calls/{call_id}"))[1]["recording"] == "kept"
        _, peaks = await who.get(f"/api/recordings/{call_id}/peaks?columns=10")
        assert len(peaks["caller"]) == len(peaks["bot"]) <= 10 and peaks["seconds"] >= 0
        for odd in (
            "limit=0",
            "limit=201",
            "limit=x",
            "limit=",
            "limit=-1",
            "limit=٣",
            "limit=" + "9" * 5000,
        ):
            assert (await who.get(f"/api/recordings?{odd}"))[0] == 400
        async with who.http.get(
            f"/api/recordings/{call_id}/audio",
            headers={"Authorization": f"Bearer {TOKEN}", "Range": "bytes=0-3"},
        ) as answer:
            assert answer.status == 206 and await answer.read() == b"RIFF"


async def test_half_a_character_keeps_nobody_from_watching(tmp_path: Path) -> None:
    """What Asterisk hands on of a caller is JSON, which can carry what no socket takes."""
    async with operator(tmp_path, SAVE_RECORDINGS="yes", RECORDINGS_MIN_FREE_MB="0") as who:
        async with following(who) as seen:
            await until(lambda: bool(seen))
            call_id = await who.caller(number="smile \ud83d", extension="\udcff")
            await until(lambda: seen[-1].get("summary", {}).get("stage") == "talking")
            assert seen[-1]["call"] == call_id and seen[-1]["summary"]["from"] == "smile \ud83d"
            await who.post(f"/api/calls/{call_id}/hangup")
            await until(lambda: seen[-1].get("summary", {}).get("stage") == "over")
        await until(lambda: '"ended"' in "".join(p.read_text() for p in tmp_path.rglob("events.jsonl")))
        _, answer = await who.get("/api/recordings")
        assert answer["recordings"][0]["number"] == "smile \ud83d"


async def test_a_disk_that_does_not_answer_is_said_and_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "TIMEOUT_S", 0.2)
    folder = tmp_path / "recordings/serve_20200101-120000_aa"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "events.jsonl")  # whoever opens it waits for somebody who writes
    async with operator(tmp_path) as who:
        for path in ("/api/recordings", "/api/recordings/aa"):
            status, answer = await who.get(path)
            assert status == 503 and "did not answer" in answer["error"]
        assert (await who.get("/api/calls"))[0] == 200
        os.close(os.open(folder / "events.jsonl", os.O_WRONLY | os.O_NONBLOCK))  # lets both go


async def test_what_is_not_recorded_or_has_no_voice_is_said(tmp_path: Path) -> None:
    async with operator(tmp_path) as who:
        call_id = await who.caller()
        status, answer = await who.post(f"/api/calls/{call_id}/recording", {"paused": True})
        assert status == 404 and "not recorded" in answer["error"]
        for odd in ("", " ", "smile \ud83d", "\udc00", "a\0b", "x" * 1001):
            assert (await who.post(f"/api/calls/{call_id}/say", {"text": odd}))[0] == 400
        assert (await who.post(f"/api/calls/{call_id}/say", {"text": "smile \U0001f600"}))[0] == 404
        status, answer = await who.post(f"/api/calls/{call_id}/say", {"text": "Hello."})
        assert status == 404 and "echo" in answer["error"]
        who.asterisk.hang_up(CALLER)


@pytest.mark.parametrize("name", ["..", "../x", "%2e%2e%2fetc", "serve_1_2", "a" * 500, ""])
async def test_no_file_outside_the_recordings(tmp_path: Path, name: str) -> None:
    (tmp_path / "full_call.wav").write_bytes(b"secret")
    (tmp_path / "recordings").mkdir()
    async with operator(tmp_path) as who:
        for path in ("", "/audio", "/peaks"):
            status, answer = await who.get(f"/api/recordings/{name}{path}")
            assert status in (404, 200) and "secret" not in json.dumps(answer)
            assert status == 404 or answer == {"recordings": []}


# --- calling out -------------------------------------------------------------------------------------


async def test_a_call_is_placed_by_the_same_rules_as_dial(tmp_path: Path) -> None:
    async with operator(tmp_path, DIAL_ALLOW="+4420", DIAL_PER_MINUTE="1") as who:
        status, answer = await who.post("/api/calls", {"number": "+49301234567"})
        assert status == 422 and "DIAL_ALLOW" in answer["error"]
        assert (await who.post("/api/calls", {"number": "drop table"}))[0] == 422
        status, answer = await who.post("/api/calls", {"number": "+442071234567"})
        assert status == 201
        call_id = answer["call"]
        await until(lambda: bool(who.asterisk.channels))
        status, answer = await who.post("/api/calls", {"number": "+442071234567"})
        assert status == 429 and "DIAL_PER_MINUTE" in answer["error"]
        status, answer = await who.post(f"/api/calls/{call_id}/transfer", {"extension": "1"})
        assert status == 404 and "outbound" in answer["error"]
        assert (await who.post(f"/api/calls/{call_id}/hangup"))[0] == 200
        await until(lambda: not who.asterisk.channels)


async def test_no_call_is_placed_when_all_lines_are_taken(tmp_path: Path) -> None:
    async with operator(tmp_path, MAX_CALLS="1", DIAL_ALLOW="+4420") as who:
        await who.caller()
        status, answer = await who.post("/api/calls", {"number": "+442071234567"})
        assert status == 429 and "MAX_CALLS" in answer["error"]
        who.asterisk.hang_up(CALLER)


BODIES = (
    *(
        b"",
        b"nonsense",
        b"[]",
        b'{"number": 5}',
        b'{"number": "1", "more": 1}',
        b"{}",
        b"\xff",
        b"[" * 60_000,
    ),
    '{"number": "1"}'.encode("utf-16"),
)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:20]))
async def test_a_body_that_is_not_as_described(tmp_path: Path, body: bytes) -> None:
    async with operator(tmp_path) as who:
        for kind in ("application/json", "application/json; charset=nonsense"):
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind}
            status, answer = await who._ask("POST", "/api/calls", data=body, headers=headers)
            assert status in (400, 422) and answer["error"]
            assert (await who._ask("POST", "/login", data=body, headers={"Content-Type": kind}))[0] == 401


async def test_a_body_that_is_too_long(tmp_path: Path) -> None:
    async with operator(tmp_path) as who:
        assert (await who.post("/api/calls", {"number": "1" * 100_000}))[0] == 413


# --- figures -----------------------------------------------------------------------------------------


async def test_metrics_count_what_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "FIRST_S", 0.01)
    async with operator(tmp_path, MAX_CALLS="1") as who:
        call_id = await who.caller()
        who.asterisk.caller_arrives("1700000000.2", app="bot")
        await until(lambda: not who.asterisk.channels["1700000000.2"].app)
        figures = await scrape(who)
        assert figures["ari_app_calls_active"] == 1 and figures["ari_app_registered"] == 1
        assert figures['ari_app_calls_refused_total{reason="busy"}'] == 1

        async def has_line() -> bool:
            return bool((await who.get(f"/api/calls/{call_id}"))[1]["line"])

        while not await has_line():
            await asyncio.sleep(0.01)
        await who.post(f"/api/calls/{call_id}/hangup")
        await until(lambda: not who.app._calls.living)
        figures = await scrape(who)
    ended = 'ari_app_calls_total{direction="inbound",ended_by="us",outcome="answered"}'
    assert figures[ended] == 1 and figures["ari_app_calls_active"] == 0
    assert figures["ari_app_caller_mos_count"] == 1
    assert 3.9 < figures["ari_app_caller_mos_sum"] < 4.4, "2 % lost"
    assert figures['ari_app_rtp_packets_total{kind="sent"}'] > 0
    assert figures['ari_app_call_seconds_count{direction="inbound"}'] == 1


async def scrape(who: Operator) -> dict[str, float]:
    status, text = await who.get("/metrics")
    assert status == 200
    lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


# --- the description ---------------------------------------------------------------------------------


async def test_every_route_is_described_and_nothing_else(tmp_path: Path) -> None:
    described = {
        (method.upper(), path) for path, operations in description()["paths"].items() for method in operations
    }
    async with operator(tmp_path) as who:
        web = who.app._web()
        routes = {
            (route.method, route.resource.canonical)
            for route in web._app.router.routes()
            if route.resource and route.method != "HEAD" and route.resource.canonical.startswith("/api/")
        }
    assert routes - {("GET", "/api/openapi.json")} == described
