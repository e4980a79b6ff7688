"""What a stranger, a page of a stranger, and a watcher who does not read can do to the HTTP server: nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
import uvloop
from aiohttp import web

from ari_app.web import access, api, door
from ari_app.web.phone import Phone
from ari_app.web.server import CONSOLE
from tests.fakes.asterisk import until
from tests.web.test_web import TOKEN, Operator, operator

PAGE = {"Accept": "text/html"}
OURS = {"X-Requested-With": "console"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(access, "WRONG_TOKEN_S", 0.01)


def address(who: Operator) -> tuple[str, int]:
    url = who.http._base_url
    assert url is not None and url.host is not None and url.port is not None
    return url.host, url.port


async def raw(who: Operator, head: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*address(who))
    writer.write(head)
    return reader, writer


async def log_in(who: Operator) -> None:
    assert (await who.post("/login", {"token": TOKEN}, headers={}))[0] == 200


# --- pages of strangers


@pytest.mark.parametrize(
    "path", ["/login", "/", "/api/calls", "/metrics", "/phone", "/phone/sip", "/console.css"]
)
@pytest.mark.parametrize(
    "name", ["evil.example", "127.0.0.1.evil.example:8089", "evil.example.", "[evil.example]"]
)
async def test_a_page_that_made_its_own_name_lead_here_is_refused(
    tmp_path: Path, path: str, name: str
) -> None:
    """DNS rebinding: the browser takes us for the page's own server, and sends it whatever it knows of that name."""
    async with operator(tmp_path) as who:
        await log_in(who)
        status, answer = await who.get(path, headers={"Host": name})
        assert status == 421 and "WEB_NAMES" in answer["error"]
        status, _ = await who.post("/login", {"token": TOKEN}, headers={"Host": name})
        assert status == 421
        assert (await who.get("/live", headers={"Host": name}))[0] == 200


@pytest.mark.parametrize(
    "name",
    [
        "localhost:8089",
        "127.0.0.1",
        "[::1]:8089",
        "192.0.2.7:80",
        "app:8089",
        "BOT.example.com",
        "a.localhost",
    ],
)
async def test_the_console_s_own_names_are_answered(tmp_path: Path, name: str) -> None:
    async with operator(tmp_path, WEB_NAMES="bot.example.com") as who:
        assert (await who.get("/login", headers={"Host": name}))[0] == 200


async def test_a_program_with_the_token_may_call_us_anything(tmp_path: Path) -> None:
    async with operator(tmp_path) as who:
        headers = {"Host": "app.telephony.svc.cluster.local", "Authorization": f"Bearer {TOKEN}"}
        assert (await who.get("/metrics", headers=headers))[0] == 200
        headers["Authorization"] = "Bearer wrong"
        assert (await who.get("/metrics", headers=headers))[0] == 401


async def test_no_other_origin_reads_or_does_anything(tmp_path: Path) -> None:
    """Also one on another port of this machine, to which a browser sends our cookie."""
    async with operator(tmp_path) as who:
        await log_in(who)
        other = {"Origin": "http://127.0.0.1:9999"}
        async with who.http.get("/api/calls", headers=other) as answer:
            assert answer.status == 200, (
                "the browser has sent the cookie, and lets the page see nothing of this:"
            )
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Server"] == "ari_app", "which versions run here is nobody's business"
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        for kind in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "application/json",
        ):
            headers = {**other, "Content-Type": kind}
            async with who.http.post("/api/calls", data=b'{"number": "100"}', headers=headers) as answer:
                assert answer.status == 401, "what a form can send without asking"
        asked = {
            **other,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-requested-with",
        }
        async with who.http.options("/api/calls", headers=asked) as answer:
            assert answer.status in (401, 405)
            assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["", "null", "http://evil.example", "http://[", "://", "http://127.0.0.1:1"]
)
async def test_the_telephone_is_for_our_own_page(tmp_path: Path, origin: str) -> None:
    async with operator(tmp_path, BROWSER_PASSWORD="a-password-of-the-test") as who:
        await log_in(who)
        headers = {"Origin": origin} if origin else {}
        assert (await who.get("/phone/sip", headers=headers))[0] == 403


def test_the_console_is_made_of_text_nodes() -> None:
    scripts = sorted(CONSOLE.glob("*.js"))
    assert len(scripts) >= 3
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(", text
        ), script


# --- tokens


@pytest.mark.parametrize("token", ["\udcff", "é" * 20, "\ud800", TOKEN[:-1], TOKEN + " x", ""])
async def test_a_wrong_token_of_any_kind_is_only_wrong(
    tmp_path: Path, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with operator(tmp_path) as who:
        body = json.dumps({"token": token}).encode()
        async with who.http.post("/login", data=body) as answer:
            assert answer.status == 401
        value = f"Bearer {token}".encode(errors="surrogateescape" if token != "\ud800" else "surrogatepass")
        head = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: " + value
        reader, writer = await raw(who, head + b"\r\n\r\n")
        assert (await reader.read()).split(b" ")[1] in (b"401", b"400")
        writer.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_wrong_tokens_wait_for_each_other_and_the_right_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "WRONG_TOKEN_S", 0.2)
    async with operator(tmp_path) as who:
        wrong = {"Authorization": "Bearer wrong"}
        guesses = [asyncio.create_task(who.get("/metrics", headers=wrong)) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert (await who.get("/metrics"))[0] == 200
        assert sum(guess.done() for guess in guesses) <= 1
        for guess in guesses:
            guess.cancel()
        await asyncio.gather(*guesses, return_exceptions=True)


# --- connections


async def test_connections_are_counted_and_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "MAX_CONNECTIONS", 5)
    async with operator(tmp_path) as who:
        held = [await raw(who, b"GET /live HTTP/1.1\r\n") for _ in range(5)]
        await asyncio.sleep(0.05)
        reader, writer = await raw(who, b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            assert await reader.read() == b""
            raise ConnectionResetError
        writer.close()
        for _, holder in held:
            holder.close()
        await asyncio.sleep(0.05)
        assert (await who.get("/live", headers={}))[0] == 200


@pytest.mark.parametrize(
    "head", [b"", b"GET /live HTTP/1.1\r\nHost: x\r\nX-A: ", b"POST /login HTTP/1.1\r\n"]
)
async def test_who_never_comes_to_the_point_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    """Slowloris: a character now and then, for ever."""
    monkeypatch.setattr(door, "HEAD_S", 0.3)
    async with operator(tmp_path) as who:
        reader, writer = await raw(who, head)

        async def drip() -> None:
            while True:
                writer.write(b"a")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionResetError):
                # Closed by a reset; what was answered to the nonsense before does not matter.
                await reader.read()
                raise ConnectionResetError
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        writer.close()


async def test_a_body_that_never_ends_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "BODY_S", 0.2)
    async with operator(tmp_path) as who:
        for path, more in (("/login", ""), ("/api/calls", f"Authorization: Bearer {TOKEN}\r\n")):
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}Content-Length: 1000\r\n\r\n{{"
            reader, writer = await raw(who, head.encode())
            async with asyncio.timeout(5):
                assert b" 408 " in await reader.readline()
            writer.close()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX-A: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X-A: a\r\n" * 10_000 + b"\r\n",
        b"\x16\x03\x01\x02\x00" + bytes(500),
        b"POST /login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n",
        b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET //etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /console.js/../../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_a_malformed_request_costs_itself(
    tmp_path: Path, request_: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "BODY_S", 0.2)
    async with operator(tmp_path) as who:
        reader, writer = await raw(who, request_)
        async with asyncio.timeout(5):
            try:
                answer = await reader.readline()
            except ConnectionResetError:
                answer = b""
        assert not answer or answer.split(b" ")[1][:1] == b"4" or b" 303 " in answer
        writer.close()
        assert (await who.get("/live", headers={}))[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# --- watchers


async def test_a_watcher_who_does_not_read_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "READ_S", 0.3)
    async with operator(tmp_path) as who:
        with socket.socket() as idle:
            idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            idle.connect(address(who))
            idle.sendall(
                f"GET /api/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
            )
            await until(lambda: bool(who.app._live._queues))
            for _ in range(1500):
                who.app._live.refused("busy " * 2000)
            await until(lambda: not who.app._live._queues)
            # What was written and never read is given up, too: the connection is gone.
            gone = False
            with suppress(ConnectionResetError):
                while not gone:
                    gone = not await asyncio.to_thread(idle.recv, 2**20)


async def test_half_a_character_in_an_event_breaks_no_stream(tmp_path: Path) -> None:
    async with operator(tmp_path) as who:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with who.http.get("/api/events", headers=headers) as stream:
            await stream.content.readline()
            await until(lambda: bool(who.app._live._queues))
            who.app._live.refused("\ud800")
            who.app._live.refused("busy")
            lines: list[bytes] = []
            while len(lines) < 2:
                line = await stream.content.readline()
                lines += [line] if line.startswith(b"data: ") else []
        reasons = [json.loads(line.removeprefix(b"data: "))["reason"] for line in lines]
        assert reasons == ["\ud800", "busy"]


def test_on_uvloop_too_the_door_counts_and_ends_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop of production has transports of its own."""
    monkeypatch.setattr(door, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(door, "HEAD_S", 0.2)

    async def knock() -> None:
        counted = door.Door(asyncio.Protocol)
        server = await asyncio.get_running_loop().create_server(counted, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        await until(lambda: counted.connections == 2)
        async with asyncio.timeout(5):
            for reader, writer in lines:
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
                writer.close()
        await until(lambda: counted.connections == 0)
        server.close()

    uvloop.run(knock())


# --- sessions that end


@pytest.mark.parametrize("how", ["logged out", "pushed out", "over"])
async def test_the_end_of_a_session_is_the_end_of_its_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(access, "MAX_SESSIONS", 1)
    monkeypatch.setattr(access, "SESSION_S", 0.5 if how == "over" else 60)
    async with operator(tmp_path) as who:
        await log_in(who)
        async with who.http.get("/api/events") as stream:
            assert stream.status == 200 and await stream.content.readline()
            if how == "logged out":
                assert (await who.post("/logout", {}, headers=OURS))[0] == 200
            elif how == "pushed out":
                await log_in(who)
            async with asyncio.timeout(5):
                while await stream.content.readline():
                    pass


async def test_a_program_s_stream_does_not_depend_on_sessions(tmp_path: Path) -> None:
    async with operator(tmp_path) as who:
        await log_in(who)
        token = {"Authorization": f"Bearer {TOKEN}"}
        async with who.http.get("/api/events", headers=token) as stream:
            assert await stream.content.readline()
            await who.post("/logout", {}, headers=OURS)
            with suppress(TimeoutError):
                async with asyncio.timeout(3 * api.LEVELS_EVERY_S):
                    await stream.content.readuntil(b"never")
            assert not stream.content.at_eof()


@pytest.mark.parametrize("how", ["logged out", "pushed out"])
async def test_the_end_of_a_session_is_the_end_of_its_telephone(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(access, "MAX_SESSIONS", 1)
    door_keeper = access.Access(TOKEN)
    async with sip_websocket() as asterisk:
        application = web.Application(middlewares=[door_keeper.middleware])
        application.router.add_post("/login", door_keeper.login)
        application.router.add_post("/logout", door_keeper.logout)
        application.router.add_routes(Phone(asterisk, "p" * 20, "100").routes())
        jar = aiohttp.CookieJar(unsafe=True)
        async with served(application) as url, aiohttp.ClientSession(url, cookie_jar=jar) as http:
            (await http.post("/login", json={"token": TOKEN})).raise_for_status()
            async with http.ws_connect("/phone/sip", protocols=("sip",), headers={"Origin": url}) as phone:
                await phone.send_str("REGISTER")
                assert await phone.receive_str() == "REGISTER"
                if how == "logged out":
                    (await http.post("/logout", json={}, headers=OURS)).raise_for_status()
                else:
                    (await http.post("/login", json={"token": TOKEN})).raise_for_status()
                assert (await phone.receive(5)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


@asynccontextmanager
async def served(application: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def sip_websocket() -> AsyncIterator[str]:
    """Says again what it is told, as Asterisk's websocket would not."""

    async def answer(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("sip",))
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    application = web.Application()
    application.router.add_get("/ws", answer)
    async with served(application) as url:
        yield url
