"""The real Asterisk with our configuration: how it starts, who may reach it, and what callers hear."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import tempfile
import wave
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import pytest_asyncio

from ari_app.demo.asterisk import AsteriskSettings, PrivateAsterisk
from ari_app.demo.asterisk_prefix import Prefix, fetch
from ari_app.errors import ConfigError, SetupError
from tests.fakes.raw_sip_phone import RawSipPhone, parse_message

pytestmark = pytest.mark.asyncio(loop_scope="module")

TROUBLE = re.compile(r"ERROR|WARNING")


TRUNK_HOST = "127.0.0.2"
"""Not the address of the other callers: who calls from the trunk's is the trunk."""


@pytest.fixture(scope="module")
def prefix() -> Prefix:
    return fetch(lambda line: None)


@pytest.fixture(scope="module")
def away_sound(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A second of 700 Hz, as a sound file named without its suffix."""
    path = tmp_path_factory.mktemp("sounds") / "away"
    with wave.open(f"{path}.wav", "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        tone = 8000 * np.sin(2 * np.pi * 700 * np.arange(8000) / 8000)
        file.writeframes(tone.astype("<i2").tobytes())
    return str(path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trunk() -> AsyncIterator[RawSipPhone]:
    async with RawSipPhone(0, "trunk", host=TRUNK_HOST) as phone:
        yield phone


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asterisk(prefix: Prefix, trunk: RawSipPhone) -> AsyncIterator[PrivateAsterisk]:
    settings = AsteriskSettings(trunk_domain=TRUNK_HOST, trunk_port=str(trunk.port))
    async with PrivateAsterisk(prefix, settings) as running:
        trunk.server_port = running.sip_port
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def second(prefix: Prefix, away_sound: str) -> AsyncIterator[PrivateAsterisk]:
    """Another Asterisk beside the first, with a fallback extension and a sound."""
    settings = AsteriskSettings(
        app_name="other_app", bot_extension="200", fallback_extension="124", away_sound=away_sound
    )
    async with PrivateAsterisk(prefix, settings) as running:
        yield running


def caller(asterisk: PrivateAsterisk) -> RawSipPhone:
    return RawSipPhone(asterisk.sip_port, asterisk.caller_user, asterisk.caller_password)


def ari(asterisk: PrivateAsterisk) -> aiohttp.ClientSession:
    headers = {"Authorization": aiohttp.encode_basic_auth(asterisk.ari_user, asterisk.ari_password)}
    return aiohttp.ClientSession(asterisk.ari_url, headers=headers)


def level(pcm: np.ndarray[Any, Any], frequency_hz: float) -> float:
    """Amplitude of one frequency in the signal."""
    turns = np.exp(-2j * np.pi * frequency_hz * np.arange(len(pcm)) / 8000)
    return float(2 * abs(np.vdot(turns, pcm.astype(float))) / max(len(pcm), 1))


# --- the process


async def test_it_starts_without_a_complaint(asterisk: PrivateAsterisk) -> None:
    said = asterisk.log_path.read_text() + (asterisk.folder / "console.log").read_text()
    assert "Asterisk Ready" in said
    assert [line for line in said.splitlines() if TROUBLE.search(line)] == []
    assert "Asterisk 22." in await asterisk.rx("core show version")


async def test_two_run_beside_each_other(asterisk: PrivateAsterisk, second: PrivateAsterisk) -> None:
    assert asterisk.pid != second.pid
    assert asterisk.ari_password != second.ari_password
    for one in (asterisk, second):
        async with ari(one) as session, session.get("/ari/asterisk/ping") as response:
            assert response.status == 200
    assert TROUBLE.search(second.log_path.read_text()) is None


async def test_nothing_is_left_when_it_stops(prefix: Prefix) -> None:
    async with PrivateAsterisk(prefix) as asterisk:
        pid, folder = asterisk.pid, asterisk.folder
        assert pid is not None
    assert not Path(f"/proc/{pid}").exists()
    assert not folder.exists()
    assert asterisk.pid is None
    await asterisk.stop()  # again: nothing happens


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A temporary folder with a path short enough for Asterisk's console socket."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        yield Path(folder)


async def test_it_does_not_outlive_a_killed_parent(prefix: Prefix, short_folder: Path) -> None:
    code = (
        "import asyncio, signal, sys; from pathlib import Path; "
        # A shell starts what runs in its background with SIGINT ignored, and that is inherited.
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from ari_app.demo.asterisk import PrivateAsterisk; from ari_app.demo.asterisk_prefix import Prefix\n"
        "async def main():\n"
        "    async with PrivateAsterisk(Prefix(Path(sys.argv[1]))) as asterisk:\n"
        "        print(asterisk.pid, asterisk.folder, flush=True)\n"
        "        await asterisk.wait()\n"
        "asyncio.run(main())\n"
    )
    environ = {**os.environ, "TMPDIR": str(short_folder)}
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(prefix.root), stdout=asyncio.subprocess.PIPE, env=environ
    )
    assert parent.stdout is not None
    pid, folder = (await parent.stdout.readline()).decode().split(" ", 1)
    parent.send_signal(signal.SIGKILL)
    await parent.communicate()
    try:
        async with asyncio.timeout(20):
            while Path(f"/proc/{pid}").exists():
                await asyncio.sleep(0.05)
    except TimeoutError:
        os.kill(int(pid), signal.SIGKILL)
        raise
    assert Path(folder.strip()).exists()
    # The next start finds what the killed one left, and removes it.
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(prefix.root), stdout=asyncio.subprocess.PIPE, env=environ
    )
    assert parent.stdout is not None
    await parent.stdout.readline()
    assert not Path(folder.strip()).exists()
    parent.send_signal(signal.SIGINT)
    await parent.communicate()
    assert list(short_folder.iterdir()) == []


async def test_folder_and_password_of_the_operator(prefix: Prefix, short_folder: Path) -> None:
    """Every character that means something to Asterisk's configuration, in a path and in a password."""
    folder = short_folder / "a;b #c"
    (folder / "etc/credentials").mkdir(parents=True)
    password = 'p;a;--ss\\"#=>[x]${Y}(!)'
    (folder / "etc/credentials/ari_password").write_text(password)
    async with PrivateAsterisk(prefix, folder=folder) as asterisk:
        assert asterisk.ari_password == password
        async with ari(asterisk) as session, session.get("/ari/asterisk/ping") as response:
            assert response.status == 200
        with pytest.raises(SetupError, match="another private Asterisk runs in"):
            await PrivateAsterisk(prefix, folder=folder).__aenter__()
    assert (folder / "etc/credentials/ari_password").read_text() == password


async def test_a_wrong_setting_is_one_sentence(prefix: Prefix) -> None:
    with pytest.raises(ConfigError, match="^Asterisk setting bot_extension must be an extension"):
        await PrivateAsterisk(prefix, AsteriskSettings(bot_extension="_X.")).__aenter__()


async def test_taken_ports_are_one_sentence(prefix: Prefix, asterisk: PrivateAsterisk) -> None:
    with pytest.raises(SetupError, match=f"cannot listen on TCP port {asterisk.http_port} and UDP port"):
        await PrivateAsterisk(prefix, http_port=asterisk.http_port, sip_port=asterisk.sip_port).__aenter__()


# --- who may reach it


async def test_ari_answers_only_with_the_password(asterisk: PrivateAsterisk) -> None:
    wrong = {"Authorization": aiohttp.encode_basic_auth(asterisk.ari_user, "x" * 32)}
    async with aiohttp.ClientSession(asterisk.ari_url) as session:
        for path in ("/ari/asterisk/ping", "/ari/channels", "/ari/api-docs/resources.json"):
            for headers in ({}, wrong):
                async with session.get(path, headers=headers) as response:
                    assert response.status == 401
        async with session.get("/httpstatus") as response:
            assert response.status == 404
    origin = {"Origin": "http://evil.test"}
    async with ari(asterisk) as session, session.get("/ari/channels", headers=origin) as response:
        assert "Access-Control-Allow-Origin" not in response.headers


def bound_addresses(pid: int) -> list[tuple[str, str, int]]:
    """(protocol, address, port) of the listening TCP and bound UDP sockets of a process, from /proc."""
    sockets = {
        os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.exists() or path.is_symlink()
    }
    found = []
    for protocol, listening in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == listening and f"socket:[{parts[9]}]" in sockets:
                address, port = parts[1].split(":")
                if protocol.endswith("6"):
                    found.append((protocol, address, int(port, 16)))
                else:
                    packed = bytes.fromhex(address)[::-1]
                    found.append((protocol, socket.inet_ntoa(packed), int(port, 16)))
    return found


async def test_it_listens_on_loopback_only(asterisk: PrivateAsterisk) -> None:
    assert asterisk.pid is not None
    bound = bound_addresses(asterisk.pid)
    assert ("tcp", "127.0.0.1", asterisk.http_port) in bound
    assert ("udp", "127.0.0.1", asterisk.sip_port) in bound
    elsewhere = [one for one in bound if one[1] != "127.0.0.1"]
    assert {protocol for protocol, _, _ in elsewhere} <= {"udp", "udp6"}
    # PJSIP's DNS client has a socket each for IPv4 and IPv6, which serve nobody; no setting binds them.
    assert len(elsewhere) <= 2
    for protocol, _, port in elsewhere:
        if protocol == "udp":
            async with RawSipPhone(port, "anyone") as phone:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(phone.invite("100"), 0.5)


@pytest.mark.parametrize("name", ["stranger", "anonymous", "trunk", "demo-caller", "transport-udp"])
@pytest.mark.parametrize("number", ["100", "124", "5551"])
async def test_no_call_without_a_password(asterisk: PrivateAsterisk, name: str, number: str) -> None:
    async with RawSipPhone(asterisk.sip_port, name) as phone:
        assert await phone.invite(number) == 401


@pytest.mark.parametrize("from_user", ["", "trunk"])
async def test_no_call_with_a_wrong_password(asterisk: PrivateAsterisk, from_user: str) -> None:
    async with RawSipPhone(asterisk.sip_port, "demo-caller", "wrong" * 5, from_user=from_user) as phone:
        assert await phone.invite("100") == 401
    security = (asterisk.log_path.parent / "security.log").read_text()
    assert "ChallengeResponseFailed" in security or "InvalidAccountID" in security
    assert asterisk.caller_password not in security


async def test_an_extension_of_the_operator(asterisk: PrivateAsterisk) -> None:
    local = asterisk.folder / "etc/extensions_local.conf"
    local.write_text("exten => 600,1,Hangup(17)\n")
    await asterisk.rx("dialplan reload")
    async with caller(asterisk) as phone:
        assert await phone.invite("600") == 486


@pytest.mark.parametrize("number", ["5551", "trunk", "demo-caller", "fallback", "200"])
async def test_a_softphone_reaches_no_other_extension(asterisk: PrivateAsterisk, number: str) -> None:
    async with caller(asterisk) as phone:
        assert await phone.invite(number) == 404


# --- what callers hear


async def test_away_is_heard_and_ends(asterisk: PrivateAsterisk) -> None:
    async with caller(asterisk) as phone:
        assert await phone.invite("100") == 200
        heard = await phone.listen(1.3)
        for frequency_hz in (950, 1400, 1800):
            assert level(heard, frequency_hz) > 500
        bye = await phone.wait_for_bye(8)
    assert "cause=34" in bye.headers["reason"]
    assert "The Stasis application ari_app is not connected" in asterisk.log_path.read_text()


async def test_away_with_sound_and_fallback(second: PrivateAsterisk) -> None:
    async with caller(second) as phone:
        assert await phone.invite("200") == 200
        heard = await phone.listen(1.1)
        assert level(heard, 700) > 2000
        async with asyncio.timeout(10):
            while "!124!" not in await second.rx("core show channels concise"):
                await asyncio.sleep(0.1)
        await phone.hang_up()


@pytest.mark.parametrize(
    ("result", "expected"),
    [("busy", 486), ("completed", 603), ("", 603), ("failed", 503)],
)
async def test_a_call_given_back_without_fallback(
    asterisk: PrivateAsterisk, result: str, expected: int
) -> None:
    async with caller(asterisk) as phone:
        assert await give_back(asterisk, phone, "ari_app", "100", result) == expected


async def test_a_failed_call_goes_to_the_fallback(second: PrivateAsterisk) -> None:
    async with caller(second) as phone:
        # The echo test answers.
        assert await give_back(second, phone, "other_app", "200", "failed") == 200
        await phone.hang_up()


async def give_back(asterisk: PrivateAsterisk, phone: RawSipPhone, app: str, number: str, result: str) -> int:
    """Be the application: take a call, return it to the dialplan with a result; the caller's final status."""
    async with ari(asterisk) as session, session.ws_connect(f"/ari/events?app={app}") as events:
        call = asyncio.create_task(phone.invite(number))
        async with asyncio.timeout(10):
            while (event := await events.receive_json())["type"] != "StasisStart":
                pass
        assert event["args"] == ["inbound", number]
        channel = f"/ari/channels/{event['channel']['id']}"
        if result:
            variable = {"variable": "ARI_APP_RESULT", "value": result}
            async with session.post(f"{channel}/variable", params=variable) as response:
                assert response.status == 204
        async with session.post(f"{channel}/continue") as response:
            assert response.status == 204
        return await asyncio.wait_for(call, 5)


async def test_external_media_is_heard_both_ways(asterisk: PrivateAsterisk) -> None:
    """The modules suffice for what the application does: slin over RTP in a bridge with a ulaw caller."""
    async with (
        caller(asterisk) as phone,
        RawSipPhone(0, "application") as us,
        ari(asterisk) as session,
        session.ws_connect("/ari/events?app=ari_app") as events,
    ):
        call = asyncio.create_task(phone.invite("100"))
        async with asyncio.timeout(10):
            while (event := await events.receive_json())["type"] != "StasisStart":
                pass
        caller_id = event["channel"]["id"]
        media = {"app": "ari_app", "format": "slin", "external_host": f"127.0.0.1:{us.rtp_port}"}
        async with session.post("/ari/channels/externalMedia", params=media) as response:
            created = await response.json()
        port = int(created["channelvars"]["UNICASTRTP_LOCAL_PORT"])
        async with asyncio.timeout(10):  # before it is in Stasis no bridge takes it (status 422)
            while event["type"] != "StasisStart" or event["channel"]["id"] != created["id"]:
                event = await events.receive_json()
        for path, arguments in (
            (f"channels/{caller_id}/answer", {}),
            ("bridges/b1", {"type": "mixing"}),
            ("bridges/b1/addChannel", {"channel": f"{caller_id},{created['id']}"}),
        ):
            async with session.post(f"/ari/{path}", params=arguments) as response:
                assert response.status in (200, 204)
        assert await call == 200

        tone = (8000 * np.sin(2 * np.pi * 500 * np.arange(160) / 8000)).astype(">i2").tobytes()
        hearing = asyncio.create_task(phone.listen(1.0))
        for number in range(50):
            rtp = number.to_bytes(2, "big") + (160 * number).to_bytes(4, "big") + b"ssrc"
            us.rtp_transport.sendto(b"\x80\x0a" + rtp + tone, ("127.0.0.1", port))
            phone.rtp_transport.sendto(b"\x80\x00" + rtp + b"\x80" * 160, phone.media_address())
            await asyncio.sleep(0.02)
        assert level(await hearing, 500) > 4000
        packet = us.rtp.get_nowait()
        assert (packet[1] & 0x7F, len(packet)) == (10, 12 + 320)
        # ulaw 0x80 is the largest amplitude, 32124; slin goes over the wire with the high byte first.
        assert packet[12:] == (32124).to_bytes(2, "big") * 160
        await phone.hang_up()
        for path in (f"channels/{created['id']}", "bridges/b1"):
            async with session.delete(f"/ari/{path}") as response:
                assert response.status == 204


async def test_123_is_a_tone(asterisk: PrivateAsterisk) -> None:
    async with caller(asterisk) as phone:
        assert await phone.invite("123") == 200
        assert level(await phone.listen(1), 440) > 2000
        await phone.hang_up()


async def test_124_is_an_echo(asterisk: PrivateAsterisk) -> None:
    async with caller(asterisk) as phone:
        assert await phone.invite("124") == 200
        spoken = bytes(range(160))
        for number in range(25):
            header = (
                bytes((0x80, 0)) + number.to_bytes(2, "big") + (160 * number).to_bytes(4, "big") + b"ssrc"
            )
            phone.rtp_transport.sendto(header + spoken, phone.media_address())
            await asyncio.sleep(0.02)
        echoed = [packet[12:] for packet in (phone.rtp.get_nowait() for _ in range(phone.rtp.qsize()))]
        assert echoed.count(spoken) >= 15
        await phone.hang_up()


async def test_125_sends_keys_back(asterisk: PrivateAsterisk) -> None:
    async with caller(asterisk) as phone:
        assert await phone.invite("125") == 200
        await phone.press("12#*")
        assert await phone.hear_keys(4, 8) == "12#*"
        await phone.hang_up()


async def test_dialing_out_goes_through_ari(asterisk: PrivateAsterisk, trunk: RawSipPhone) -> None:
    async with ari(asterisk) as session, session.ws_connect("/ari/events?app=dialer") as events:
        originate = {"endpoint": "PJSIP/5551@trunk", "app": "dialer", "callerId": '"Office" <+1555>'}
        async with session.post("/ari/channels", params=originate) as response:
            assert response.status == 200
        request = await asyncio.wait_for(trunk.sip.get(), 5)
        invite = parse_message(request)
        assert invite.start.startswith(f"INVITE sip:5551@{TRUNK_HOST}:{trunk.port} ")
        assert '"Office" <sip:+1555@' in invite.headers["from"]
        assert "<sip:+1555@" in invite.headers["p-asserted-identity"]
        assert re.search(r"m=audio \d+ RTP/AVP 0 8 ", invite.body)
        trunk.reply(request, "486 Busy Here")
        async with asyncio.timeout(5):
            while (event := await events.receive_json())["type"] != "ChannelDestroyed":
                pass
        assert (event["cause"], event["tech_cause"]) == (17, 486)
