"""Asterisk's part of `check` against a strict ARI peer: each finding, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from ari_app.ari.client import AriClient
from ari_app.ari.ids import server_tag
from ari_app.ari.instances import Instance
from ari_app.check import asterisk as checks
from ari_app.check import loop, media
from ari_app.check.asterisk import (
    check_application,
    check_ari,
    check_clock,
    check_endpoint,
    check_loop,
    check_registration,
    connected,
    loop_finding,
)
from ari_app.check.findings import EXIT_ASTERISK, EXIT_CONFIG, EXIT_FAILED, Finding, Level
from ari_app.check.loop import Heard
from ari_app.check.run import run_checks
from ari_app.config import Config, load
from ari_app.rtp.packet import RtpPacket, parse_rtp
from tests.fakes.asterisk import Channel, FakeAsterisk, until
from tests.fakes.call_bench import nothing_leaks


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "FRAMES", 25)
    monkeypatch.setattr(media, "ENTER_TIMEOUT_S", 0.3)
    monkeypatch.setattr(checks, "REGISTER_TIMEOUT_S", 0.3)
    monkeypatch.setattr(checks, "POLL_S", 0.02)


@pytest.fixture
async def asterisk() -> AsyncIterator[FakeAsterisk]:
    async with nothing_leaks(), FakeAsterisk() as fake:
        yield fake
        fake.assert_clean()


def config(asterisk: FakeAsterisk, **settings: str) -> Config:
    usual = {
        "ARI_URL": asterisk.url,
        "ARI_USERNAME": asterisk.user,
        "ARI_PASSWORD": asterisk.password,
        "ARI_APP": "bot",
        "MODE": "echo",
    }
    return load({}, {**usual, **settings}, {})


async def look(
    config: Config, state_dir: Path, *, reg_timeout_s: float | None = 0.1, **environ: str
) -> dict[str, Finding]:
    """What `check` says of Asterisk, by subject."""
    found = {}
    async for finding in run_checks(
        config,
        [],
        environ=environ,
        state_dir=state_dir,
        today=date(2026, 11, 23),
        reg_timeout_s=reg_timeout_s,
    ):
        found[finding.subject] = finding
    for subject in ("settings", "ports", "recordings", "dialling", "engines"):
        del found[subject]
    return found


# --- reaching it -------------------------------------------------------------------------------------


async def test_all_is_well(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    asterisk.endpoints["PJSIP/trunk"] = "online"
    asterisk.variables["TRUNK_STATE"] = "Registered"
    found = await look(config(asterisk), tmp_path)
    assert list(found) == ["asterisk", "clock", "application", "trunk", "registration", "rtp loop"]
    assert {f.level for f in found.values()} == {Level.OK}
    assert "22.10.1" in found["asterisk"].text and asterisk.url in found["asterisk"].text
    assert asterisk.password not in "".join(f.text for f in found.values())
    assert [path.name for path in (tmp_path / "instances").iterdir()] == []


@pytest.mark.parametrize(
    ("mode", "said", "remedy"),
    [
        ("unauthorized", "refused the login", "ARI_PASSWORD"),
        ("booting", "still starting, or has no ARI", "ari.conf"),
        ("not_booted", "starting or shutting down", "log"),
    ],
)
async def test_it_does_not_let_us_in(
    mode: str, said: str, remedy: str, asterisk: FakeAsterisk, tmp_path: Path
) -> None:
    asterisk.mode = mode
    found = await look(config(asterisk), tmp_path)
    assert list(found) == ["asterisk"], "the rest needs it"
    finding = found["asterisk"]
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_ASTERISK)
    assert said in finding.text and remedy in finding.remedy


async def test_a_wrong_password(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    finding = (await look(config(asterisk, ARI_PASSWORD="not-the-password"), tmp_path))["asterisk"]
    assert finding.level is Level.FAILED and "ARI_PASSWORD" in finding.remedy
    assert "not-the-password" not in finding.text + finding.remedy


async def test_no_password(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    finding = (await look(config(asterisk, ARI_PASSWORD=""), tmp_path))["asterisk"]
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_CONFIG)
    assert "ARI_PASSWORD is not set" in finding.text


async def test_nobody_is_there(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    await asterisk.stop()
    finding = (await look(config(asterisk), tmp_path))["asterisk"]
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_ASTERISK)
    assert finding.text == f"nobody answers at {asterisk.url} (Connection refused)"
    assert finding.remedy == "check ARI_URL, and that Asterisk is running"


async def test_a_host_that_does_not_exist(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    finding = (await look(config(asterisk, ARI_URL="http://asterisk.invalid:8088"), tmp_path))["asterisk"]
    assert finding.level is Level.FAILED and "asterisk.invalid" in finding.text
    assert "ARI_URL" in finding.remedy


async def test_it_goes_away_in_between(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    asterisk.script("GET", "/asterisk/variable", status=500, body="{}")
    found = await look(config(asterisk), tmp_path)
    finding = found["asterisk"]
    assert finding.level is Level.FAILED and "read the global variable EPOCH" in finding.text
    assert "log" in finding.remedy and "rtp loop" not in found


# --- clock -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead_s", "level", "said"),
    [(0, Level.OK, ""), (-600, Level.WARNING, " s ahead of"), (3600, Level.WARNING, " s behind")],
)
async def test_clocks(ahead_s: int, level: Level, said: str, asterisk: FakeAsterisk) -> None:
    asterisk.variables["EPOCH"] = str(int(time.time()) + ahead_s)
    async with connected(config(asterisk)) as rest:
        finding = await check_clock(rest)
    assert finding.level is level and said in finding.text
    assert ("NTP" in finding.remedy) is (level is Level.WARNING)
    assert float(finding.figures["ahead_of_asterisk_s"]) == pytest.approx(-ahead_s, abs=3)


async def test_an_asterisk_that_does_not_tell_its_time(asterisk: FakeAsterisk) -> None:
    del asterisk.variables["EPOCH"]
    async with connected(config(asterisk)) as rest:
        assert (await check_clock(rest)).level is Level.SKIPPED


# --- the Stasis application --------------------------------------------------------------------------


@asynccontextmanager
async def registered(asterisk: FakeAsterisk, app: str) -> AsyncIterator[None]:
    """Somebody holds the application."""
    async with AriClient(asterisk.url, asterisk.user, asterisk.password, app, lambda event: None) as client:
        task = asyncio.create_task(client.run())
        await client.registered.wait()
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def application(asterisk: FakeAsterisk, state_dir: Path) -> Finding:
    async with connected(config(asterisk)) as rest:
        return await check_application(rest, config(asterisk), state_dir)


async def test_the_application_is_free(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    async with registered(asterisk, "another"):
        finding = await application(asterisk, tmp_path)
    assert finding.level is Level.OK and "free" in finding.text


async def test_the_application_is_held_by_serve(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    tag = server_tag("bot", asterisk.url)
    with Instance(tmp_path, tag, asterisk.url, "bot"):
        async with registered(asterisk, "bot"):
            held = await application(asterisk, tmp_path)
            assert asterisk.is_registered("bot"), "looking disturbs nobody"
        await until(lambda: not asterisk.is_registered("bot"))
        lost = await application(asterisk, tmp_path)
    assert held.level is Level.OK and "held by serve" in held.text
    assert lost.level is Level.WARNING and "not registered" in lost.text and "log of serve" in lost.remedy


async def test_the_application_is_held_by_somebody_else(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    async with registered(asterisk, "bot"):
        finding = await application(asterisk, tmp_path)
        assert asterisk.is_registered("bot")
    assert finding.level is Level.WARNING
    assert "not on this host" in finding.text and "ARI_APP" in finding.remedy


# --- the trunk ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "level", "said"),
    [
        ("PJSIP/{number}@trunk", Level.OK, "reachable"),
        ("PJSIP/trunk/sip:{number}@provider.example", Level.OK, "PJSIP/trunk"),
        ("PJSIP/{number}@quiet", Level.OK, "PJSIP/quiet"),
        ("PJSIP/{number}@away", Level.WARNING, "PJSIP/away is offline"),
        ("PJSIP/{number}@nowhere", Level.WARNING, "no endpoint PJSIP/nowhere"),
        ("PJSIP/{number}", Level.SKIPPED, "names no endpoint"),
        ("Local/{number}@out", Level.SKIPPED, "names no endpoint"),
    ],
)
async def test_the_endpoint_that_dial_uses(
    endpoint: str, level: Level, said: str, asterisk: FakeAsterisk
) -> None:
    asterisk.endpoints = {"PJSIP/trunk": "online", "PJSIP/quiet": "unknown", "PJSIP/away": "offline"}
    settings = config(asterisk, DIAL_ENDPOINT=endpoint)
    async with connected(settings) as rest:
        finding = await check_endpoint(rest, settings)
    assert finding.level is level and said in finding.text
    assert bool(finding.remedy) is (level is Level.WARNING)


@pytest.mark.parametrize(
    ("state", "level", "said", "remedy"),
    [
        ("Registered", Level.OK, "is registered", ""),
        ("none", Level.SKIPPED, "no trunk is set up", ""),
        ("", Level.SKIPPED, "does not tell", ""),
        ("Rejected", Level.FAILED, "Rejected", "SIP_PASSWORD"),
        ("Unregistered", Level.FAILED, "Unregistered", "SIP_DOMAIN"),
    ],
)
async def test_the_registration(
    state: str, level: Level, said: str, remedy: str, asterisk: FakeAsterisk
) -> None:
    asterisk.variables["TRUNK_STATE"] = state
    async with connected(config(asterisk)) as rest:
        finding = await check_registration(rest, 0.1)
    assert finding.level is level and said in finding.text and remedy in finding.remedy
    if level is Level.FAILED:
        assert finding.exit_code == EXIT_ASTERISK and "after 0.1 s" in finding.text
        assert len(asterisk.asked("GET", "/variable")) > 2, "it was asked again"


async def test_a_registration_may_take_its_time(asterisk: FakeAsterisk) -> None:
    asterisk.variables["TRUNK_STATE"] = "Unregistered"
    async with connected(config(asterisk)) as rest:
        looking = asyncio.create_task(check_registration(rest, 20))
        await until(lambda: len(asterisk.asked("GET", "/variable")) > 3)
        assert not looking.done()
        asterisk.variables["TRUNK_STATE"] = "Registered"
        async with asyncio.timeout(5):
            assert (await looking).level is Level.OK


@pytest.mark.parametrize(
    ("flag_s", "environ", "waited"),
    [
        (None, {"SIP_REG_TIMEOUT": "0"}, "0 s"),
        (0.2, {"SIP_REG_TIMEOUT": "90"}, "0.2 s"),
        (0.0, {"SIP_REG_TIMEOUT": "1"}, "0 s"),
    ],
)
async def test_how_long_a_registration_may_take(
    flag_s: float | None, environ: dict[str, str], waited: str, asterisk: FakeAsterisk, tmp_path: Path
) -> None:
    asterisk.variables["TRUNK_STATE"] = "Unregistered"
    found = await look(config(asterisk), tmp_path, reg_timeout_s=flag_s, **environ)
    assert f"not registered after {waited}" in found["registration"].text
    assert found["rtp loop"].level is Level.OK, "inbound calls of another way in may still come"


# --- the loop ----------------------------------------------------------------------------------------


def quieter(index: int, packet: bytes) -> bytes:
    """Half the level: -6 dB."""
    parsed = parse_rtp(packet)
    samples = np.frombuffer(parsed.payload, ">i2") // 2
    payload = samples.astype(">i2").tobytes()
    return RtpPacket(parsed.payload_type, index, parsed.timestamp, parsed.ssrc, payload).to_bytes()


async def test_the_loop_measures_both_ways(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    finding = await check_loop(config(asterisk), tmp_path)
    assert finding.level is Level.OK
    assert finding.figures["loss_percent"] == 0 and finding.figures["packets"] == 50
    assert finding.figures["gain_db"] == 0 and finding.figures["foreign_packets"] == 0
    assert 0 < float(finding.figures["delay_ms"]) < 50
    (created,) = asterisk.asked("POST", "/bridges")
    assert len(asterisk.asked("POST", "/externalMedia")) == 2
    assert len(asterisk.asked("DELETE", created["bridgeId"])) == 1


@pytest.mark.parametrize(
    ("relay", "delay_s", "level", "said", "remedy"),
    [
        (lambda index, packet: packet if index != 7 else None, 0.0, Level.WARNING, "4.0 % lost", "load"),
        (lambda index, packet: packet if index % 4 else None, 0.0, Level.FAILED, "28.0 % lost", "firewall"),
        (lambda index, packet: packet, 0.15, Level.WARNING, "ms through Asterisk", "load"),
        (quieter, 0.0, Level.WARNING, "level -6", "VOLUME()"),
        (lambda index, packet: None, 0.0, Level.FAILED, "no sound came back to 127.0.0.1", "RTP_HOST"),
        (lambda index, packet: b"no RTP", 0.0, Level.FAILED, "no sound came back", "UDP"),
    ],
    ids=["some lost", "many lost", "late", "quiet", "nothing", "strangers"],
)
async def test_what_the_loop_finds(
    relay: Callable[[int, bytes], bytes | None],
    delay_s: float,
    level: Level,
    said: str,
    remedy: str,
    asterisk: FakeAsterisk,
    tmp_path: Path,
) -> None:
    asterisk.relay, asterisk.relay_delay_s = relay, delay_s
    finding = await check_loop(config(asterisk), tmp_path)
    assert finding.level is level and said in finding.text and remedy in finding.remedy
    if level is Level.FAILED:
        assert finding.exit_code == EXIT_ASTERISK
    if delay_s:
        assert float(finding.figures["delay_ms"]) >= 150


def test_the_worse_direction_decides() -> None:
    good, bad = Heard(100, 100, 0, 0.5, 1.0, 0.0), Heard(100, 80, 3, 2.0, 9.0, -0.5)
    for finding in (loop_finding(good, bad, host="x"), loop_finding(bad, good, host="x")):
        assert finding.level is Level.FAILED and "20.0 % lost" in finding.text
        assert finding.figures["delay_max_ms"] == 9 and finding.figures["foreign_packets"] == 3


def test_a_level_that_falls_is_as_bad_as_one_that_rises() -> None:
    same, quiet = Heard(100, 100, 0, 0.5, 1.0, 0.3), Heard(100, 100, 0, 0.5, 1.0, -3.0)
    finding = loop_finding(same, quiet, host="x")
    assert finding.level is Level.WARNING and "level -3.0 dB" in finding.text


async def test_no_media_channel_enters(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    asterisk.deaf = True
    finding = await check_loop(config(asterisk), tmp_path)
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_ASTERISK)
    assert "did not enter" in finding.text and "res_stasis" in finding.remedy


async def test_no_application_can_be_registered(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    held = asterisk.hold("GET", "/events")
    finding = await check_loop(config(asterisk), tmp_path)
    held.go.set()
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_ASTERISK)
    assert "did not accept an application within 0.3 s" in finding.text


async def test_a_user_who_may_only_read(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    asterisk.script("POST", "/bridges", status=403, body='{"message": "Write access denied"}')
    finding = await check_loop(config(asterisk), tmp_path)
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_ASTERISK)
    assert "may only read" in finding.text and "read_only = no" in finding.remedy


async def test_asterisk_refuses_a_media_channel(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    asterisk.script("POST", "/channels/externalMedia", status=500, body='{"error": "Internal Server Error"}')
    finding = await check_loop(config(asterisk), tmp_path)
    assert finding.level is Level.FAILED
    assert "open the media channel" in finding.text and "chan_rtp" in finding.remedy


async def test_calls_have_taken_asterisk_s_rtp_ports(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    """One media channel more would kill it (asterisk/asterisk#1757)."""
    names = {"rtpstart": "10000", "rtpend": "10003"}  # a call's two streams
    asterisk.rtp_conf = {f"AST_CONFIG(rtp.conf,general,{name})": port for name, port in names.items()}
    asterisk.caller_arrives("1700000000.1", app="bot")
    asterisk.channels["media"] = Channel("media", "UnicastRTP/1", "Up", app="bot")
    finding = await check_loop(config(asterisk), tmp_path)
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_ASTERISK)
    assert "2 of Asterisk's 2 pairs of RTP ports are taken" in finding.text and "rtp.conf" in finding.remedy
    assert not asterisk.asked("POST", "/externalMedia")
    for call in ("1700000000.1", "media"):
        asterisk.vanish(call)


async def test_asterisk_dies_during_the_loop(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    held = asterisk.hold("POST", "/channels/externalMedia")
    looking = asyncio.create_task(check_loop(config(asterisk), tmp_path))
    await held.reached.wait()
    await asterisk.stop()
    held.go.set()
    finding = await looking
    assert finding.level is Level.FAILED and "ARI_URL" in finding.remedy
    for bridge_id in list(asterisk.bridges):  # nobody could take it down: the next process of ours will
        del asterisk.bridges[bridge_id]


async def test_an_address_that_is_not_ours(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    finding = await check_loop(config(asterisk, RTP_HOST="192.0.2.1"), tmp_path)
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_CONFIG)
    assert "192.0.2.1" in finding.text and "RTP_HOST" in finding.remedy


async def test_ports_that_are_all_taken(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        settings = config(asterisk, RTP_HOST="127.0.0.1", RTP_PORTS=f"{port}-{port}")
        finding = await check_loop(settings, tmp_path)
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_CONFIG)
    assert "RTP_PORTS" in finding.remedy


async def test_a_second_port_that_is_not_to_be_had_costs_nothing(
    asterisk: FakeAsterisk, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    settings = config(asterisk, RTP_HOST="127.0.0.1", RTP_PORTS=f"{port}-{port}")
    assert (await check_loop(settings, tmp_path)).level is Level.FAILED


async def test_no_place_for_state(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = await check_loop(config(asterisk), tmp_path / "file")
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_FAILED)
    assert "XDG_STATE_HOME" in finding.remedy


async def test_a_check_that_is_interrupted_takes_all_down(asterisk: FakeAsterisk, tmp_path: Path) -> None:
    looking = asyncio.create_task(check_loop(config(asterisk), tmp_path))
    await until(lambda: any(asterisk.bridges.values()))
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    asterisk.assert_clean()
    assert [path.name for path in (tmp_path / "instances").iterdir()] == []


async def test_the_version_and_the_round_trip(asterisk: FakeAsterisk) -> None:
    async with connected(config(asterisk)) as rest:
        finding = await check_ari(rest, config(asterisk))
    assert finding.figures["version"] == "22.10.1"
    assert float(finding.figures["round_trip_ms"]) > 0
