"""`docker compose up` for real: both images, an engine, a SIP user agent that calls from outside the containers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from ari_app.demo import script
from ari_app.demo.caller import CallerError, SipCaller
from ari_app.demo.sip_call import SipCall
from ari_app.demo.voice import utterance
from ari_app.parsers import parse_dotenv
from tests.containers.lan import PHONE, SERVER, inside, lan
from tests.containers.stack import ROOT, Stack, docker, host_address

FACTS = script.SYSTEM_MESSAGE.replace("\n", " ")
QUESTION = script.CALLER_LINES[1]
BACK_WITHIN_S = 30
SIP_PORT, LAN_SIP_PORT = 25060, 15060
FIRST_MEDIA_PORT, LAST_MEDIA_PORT = 25100, 25299
"""Other than the defaults, which other tests on this machine may use."""
HTTP, AMI, WEB, IAX, SCCP = 8088, 5038, 8089, 4569, 2000
WEB_PORT, LAN_WEB_PORT = 18089, 18090
"""The console on this host."""


@pytest.fixture(scope="module")
def host() -> str:
    return host_address()


@pytest.fixture(scope="module")
def local_network() -> Iterator[None]:
    with lan():
        yield


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A fresh clone without any `.env`."""
    ports = {
        "SIP_LISTEN_PORT": str(SIP_PORT),
        "SIP_RTP_PORTS": f"{FIRST_MEDIA_PORT}-{LAST_MEDIA_PORT}",
        "WEB_PUBLISHED_PORT": str(WEB_PORT),
    }
    with Stack(tmp_path_factory.mktemp("bare"), None, ports) as stack:
        yield stack


@pytest.fixture
def configured(tmp_path: Path, local_network: None) -> Iterator[Stack]:
    """A copy of .env.example, with what an operator sets for phones in the local network. Called from there."""
    example = ROOT / ".env.example"
    env = {name: value or "" for name, value in parse_dotenv(example, example.read_text("utf-8")).items()} | {
        "EXTERNAL_ADDRESS": SERVER,
        "SIP_LISTEN_PORT": str(LAN_SIP_PORT),
        "SIP_RTP_PORTS": "15100-15113",
        "WEB_PUBLISHED_PORT": str(LAN_WEB_PORT),
        "SYSTEM_MESSAGE": FACTS,
        "GREETING": script.GREETING,
        "SAVE_RECORDINGS": "yes",
        "DRAIN_SECONDS": "3",
    }
    with Stack(tmp_path, env, project="ari_app-test-lan") as stack, inside():
        yield stack


async def converse(call: SipCall, *, greeted: bool) -> None:
    """One question and its answer."""
    await call.answered(10)
    if greeted:
        assert (await call.listen_until_silence(max_s=15)).sound_s > 1, "no greeting was heard"
    await call.say(await asyncio.to_thread(utterance, QUESTION))
    assert (await call.listen_until_silence(max_s=15)).sound_s > 0.5, "no answer was heard"


# --- without any setting


async def test_without_settings_a_softphone_holds_a_conversation(bare: Stack, host: str) -> None:
    print(f"healthy {bare.up_s:.1f} s after `docker compose up`")  # noqa: T201, for the record
    async with bare.phone((host, SIP_PORT), host, register=True) as ua:
        assert "demo-caller/sip:" in bare.console("pjsip show contacts")
        call = await ua.dial("100")
        await converse(call, greeted=False)
        used = docker("stats", "--no-stream", "--format={{.Name}} {{.MemUsage}}")
        print(f"in the conversation:\n{used}")  # noqa: T201, for the record
        await call.hangup()


async def test_check_in_the_container_fails_nothing(bare: Stack) -> None:
    said = bare.exec("app", "python", "-m", "ari_app", "check")
    assert "nothing failed" in said
    assert "rtp loop" in said
    assert "no trunk is set up" in said


def test_the_defaults_are_the_ports_of_sip_and_a_range_of_media(bare: Stack) -> None:
    services = json.loads(docker(*bare.compose_command, "config", "--format=json"))["services"]
    published = {(port["published"], port["protocol"]) for port in services["asterisk"]["ports"]}
    media = {(str(port), "udp") for port in range(10000, 10200)}
    assert published == {("5060", "udp"), ("5060", "tcp")} | media
    assert services["app"]["environment"]["SIP_RTP_PORTS"] == "10000-10199"


def test_the_health_check_tells_asterisk_of_the_trunk(bare: Stack) -> None:
    assert "TRUNK_STATE=none" in bare.console("dialplan show globals").replace(" ", "")
    log = bare.inspect("asterisk")["State"]["Health"]["Log"]
    assert "fully booted, ARI answers" in log[-1]["Output"]


def test_only_sip_and_media_are_published(bare: Stack) -> None:
    media = {f"{port}/udp" for port in range(FIRST_MEDIA_PORT, LAST_MEDIA_PORT + 1)}
    published = bare.inspect("asterisk")["NetworkSettings"]["Ports"]
    assert {port for port, bound in published.items() if bound} == {
        f"{SIP_PORT}/udp",
        f"{SIP_PORT}/tcp",
    } | media
    published = bare.inspect("app")["NetworkSettings"]["Ports"]
    assert published == {f"{WEB}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(WEB_PORT)}]}


async def test_the_console_is_for_this_host_and_who_has_the_token(bare: Stack) -> None:
    token = bare.exec("app", "cat", "/secrets/api_token").strip()
    assert len(token) > 30
    async with aiohttp.ClientSession(f"http://127.0.0.1:{WEB_PORT}") as http:
        for path, headers, wanted in (
            ("/ready", {}, 200),
            ("/metrics", {}, 401),
            ("/metrics", {"Authorization": f"Bearer {token}"}, 200),
            ("/login", {}, 200),
        ):
            async with http.get(path, headers=headers) as answer:
                assert answer.status == wanted, path
                text = await answer.text()
            assert path != "/metrics" or wanted != 200 or "ari_app_registered 1.0" in text


def test_nothing_else_answers_from_outside(bare: Stack, host: str) -> None:
    outside, private = bare.address("asterisk", "outside"), bare.address("asterisk", "private")
    app = bare.address("app", "outside")
    assert _answers(private, HTTP), "the test itself looks at the wrong port"
    ports = (HTTP, AMI, WEB, WEB_PORT, IAX, SCCP, 80, 443, 5061, *range(FIRST_MEDIA_PORT, LAST_MEDIA_PORT))
    for port in ports:
        assert not _answers(host, port), f"TCP port {port} answers on the host"
        assert not _answers(outside, port), f"Asterisk answers on TCP port {port}"
        # Behind its token, in a network where nobody but the two should be.
        assert port == WEB or not _answers(app, port), f"the application answers on TCP port {port}"
    assert _listeners(bare, "asterisk") == {(private, HTTP), (outside, SIP_PORT)}
    others = _listeners(bare, "app") - {("0.0.0.0", WEB)}
    assert {address for address, _ in others} == {"127.0.0.1"}


def test_a_scanner_gets_nowhere_and_fail2ban_learns_its_address(bare: Stack, local_network: None) -> None:
    with inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as scanner:
        scanner.bind((PHONE, 0))
        scanner.settimeout(5)
        own = f"{PHONE}:{scanner.getsockname()[1]}"
        challenge = _invite(scanner, own, 1)
        nonce = re.search(r'nonce="([^"]+)"', challenge)
        assert challenge.startswith("SIP/2.0 401 ") and nonce is not None
        guess = (
            f'Digest username="1000",realm="asterisk",nonce="{nonce[1]}",uri="sip:x",response="{"0" * 32}"'
        )
        assert _invite(scanner, own, 2, f"Authorization: {guess}\r\n").startswith("SIP/2.0 401 ")
    log = bare.exec("asterisk", "cat", "/var/lib/asterisk/log/security.log")
    reported = 'SecurityEvent="(InvalidAccountID|ChallengeResponseFailed|InvalidPassword)"'
    assert re.search(rf'{reported}.*RemoteAddress="IPV4/UDP/{re.escape(PHONE)}/', log), log
    assert "0 active channels" in bare.console("core show channels")


def _invite(scanner: socket.socket, own: str, number: int, header: str = "") -> str:
    """Ask for a call abroad; what is answered."""
    text = (
        f"INVITE sip:00442079460000@{SERVER}:{SIP_PORT} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {own};branch=z9hG4bK-scan{number};rport\r\nMax-Forwards: 70\r\n"
        f"From: <sip:1000@{SERVER}>;tag=scan\r\nTo: <sip:00442079460000@{SERVER}>\r\nCall-ID: scan{number}\r\n"
        f"CSeq: {number} INVITE\r\nContact: <sip:1000@{own}>\r\n{header}Content-Length: 0\r\n\r\n"
    )
    scanner.sendto(text.encode(), (SERVER, SIP_PORT))
    while f"CSeq: {number} INVITE" not in (answer := scanner.recv(4096).decode()):
        continue  # the first answer once more, because it has no ACK
    return answer


def test_another_container_does_not_reach_ari(bare: Stack) -> None:
    for network in ("outside", "private"):
        address = bare.address("asterisk", network)
        probe = f"import socket; socket.create_connection(('{address}', {HTTP}), 1)"
        command = ["docker", "run", "--rm", "--entrypoint=python3", "ari_app-asterisk", "-c", probe]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "TimeoutError" in done.stderr or "unreachable" in done.stderr, done.stderr


def _answers(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
        return True
    return False


def _listeners(stack: Stack, service: str) -> set[tuple[str, int]]:
    """TCP sockets that listen in the container, by address and port (proc_pid_net(5)); not those of its DNS."""
    found = set()
    for line in stack.exec(service, "cat", "/proc/net/tcp").splitlines()[1:]:
        fields = line.split()
        address, port = fields[1].split(":")
        if fields[3] == "0A":  # listens
            found.add((socket.inet_ntoa(int(address, 16).to_bytes(4, "little")), int(port, 16)))
    return {(address, port) for address, port in found if address != "127.0.0.11"}


def test_the_containers_may_do_nothing_beyond_their_work(bare: Stack) -> None:
    for service, uid in (("asterisk", "10001"), ("app", "10002")):
        status = dict(
            line.split(":\t", 1) for line in bare.exec(service, "cat", "/proc/1/status").splitlines()
        )
        assert status["Uid"].split() == [uid] * 4
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        writing = bare.compose(
            "exec", "-T", service, "sh", "-c", "touch /x /usr/x /opt/x; ls /x", check=False
        )
        assert writing == ""


def test_the_password_of_ari_is_for_the_two_only(bare: Stack) -> None:
    assert bare.exec("asterisk", "stat", "-c", "%a %u %g", "/secrets/ari_password").split() == [
        "640",
        "10001",
        "10000",
    ]
    assert len(bare.exec("app", "cat", "/secrets/ari_password").strip()) >= 24
    assert (
        bare.exec("app", "sh", "-c", "cat /secrets/asterisk/* 2>/dev/null || echo refused").strip()
        == "refused"
    )
    for service in ("asterisk", "app"):
        assert "PASSWORD=" not in "\n".join(
            line for line in bare.inspect(service)["Config"]["Env"] if not line.endswith("PASSWORD=")
        )


# --- with settings


async def test_a_call_through_the_published_ports_is_recorded(configured: Stack) -> None:
    async with configured.phone((SERVER, LAN_SIP_PORT), PHONE) as ua:
        call = await ua.dial("100")
        await converse(call, greeted=True)
        assert not _answers(configured.address("asterisk", "outside"), HTTP), "more than the ports is reached"
        assert not _answers(SERVER, HTTP)
        await call.hangup()
    await asyncio.sleep(1)
    names = configured.exec("app", "sh", "-c", "ls /recordings/*/").split()
    assert {"full_call.wav", "full_transcript.txt", "events.jsonl"} <= set(names)
    transcript = configured.exec("app", "sh", "-c", "cat /recordings/*/full_transcript.txt")
    assert "sixty euros" in transcript
    assert "15100" in configured.exec("asterisk", "cat", "/etc/asterisk/rtp.conf")
    assert "room for 3 calls (MAX_CALLS)" in configured.exec(
        "app", "sh", "-c", "python -m ari_app check || true"
    )


async def test_a_killed_application_comes_back(configured: Stack) -> None:
    async with configured.phone((SERVER, LAN_SIP_PORT), PHONE) as ua:
        call = await ua.dial("100")
        await call.answered(10)
        configured.kill("app", "python")
        await _next_call_is_answered(configured, ua, call)
    assert configured.inspect("app")["RestartCount"] == 1


async def test_a_killed_asterisk_comes_back(configured: Stack) -> None:
    async with configured.phone((SERVER, LAN_SIP_PORT), PHONE) as ua:
        call = await ua.dial("100")
        await call.answered(10)
        configured.kill("asterisk", "asterisk")
        await _next_call_is_answered(configured, ua, call)
    assert "Asterisk died of signal 9" in configured.compose("logs", "asterisk")
    assert [configured.inspect(service)["RestartCount"] for service in ("asterisk", "app")] == [0, 0]


async def _next_call_is_answered(stack: Stack, ua: SipCaller, call: SipCall) -> None:
    began = time.monotonic()
    await asyncio.sleep(0.5)  # the crash is noticed
    while not await asyncio.to_thread(stack.is_ready):
        assert time.monotonic() - began < BACK_WITHIN_S, "the application does not come back"
        await asyncio.sleep(0.2)
    print(f"ready {time.monotonic() - began:.1f} s after the crash")  # noqa: T201, for the record
    with contextlib.suppress(CallerError):
        await call.hangup()
    again = await ua.dial("100")
    await converse(again, greeted=True)
    await again.hangup()


async def test_down_lets_the_caller_finish(configured: Stack) -> None:
    async with configured.phone((SERVER, LAN_SIP_PORT), PHONE) as ua:
        call = await ua.dial("100")
        await call.answered(10)
        await call.listen_until_silence(max_s=15)
        began = asyncio.get_running_loop().time()
        down = configured.down()
        try:
            await asyncio.sleep(2)
            assert not call.ended, "the call was cut off"
            await call.closed(20)
        finally:
            await asyncio.to_thread(down.wait, 60)
        goodbye = call.heard_since(began)
    assert goodbye.sound_s > 0.8, "no goodbye was heard"
    assert "ari_app-test-lan_recordings" in docker("volume", "ls", "-q").split(), "the recordings are gone"
