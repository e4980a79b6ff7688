"""Asterisk's side: ARI, the Stasis application, the trunk, the RTP loop. Shell."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from ari_app.ari.client import AriClient
from ari_app.ari.ids import server_tag
from ari_app.ari.instances import Instance, is_alive
from ari_app.ari.reconcile import Reconciler
from ari_app.ari.rest import AriRest
from ari_app.ari.transport import Transport
from ari_app.check.findings import EXIT_ASTERISK, EXIT_CONFIG, Finding, Level
from ari_app.check.loop import Heard
from ari_app.check.media import Loop
from ari_app.config import Config
from ari_app.errors import (
    AriAppError,
    AriError,
    AriFull,
    AriNotFound,
    AriUnauthorized,
    AriUnreachable,
    MediaError,
)
from ari_app.rtp.endpoint import own_address

REGISTER_TIMEOUT_S = 10.0
LOSS_WARNING_PERCENT, LOSS_FAILED_PERCENT = 1.0, 10.0
DELAY_WARNING_MS = 100.0
"""One way through Asterisk takes under a millisecond on one host; a caller notices from about 150 ms on."""
GAIN_WARNING_DB = 1.0
CLOCK_WARNING_S = 5.0

TRUNK_STATE = "TRUNK_STATE"
"""Global variable of Asterisk: `Registered` or another state of its registration, `none` without one.

ARI does not tell it. The health check of the Asterisk container writes it, from its console; one's own may too.
"""
POLL_S = 0.5


@asynccontextmanager
async def connected(config: Config) -> AsyncIterator[AriRest]:
    """Requests without an application of our own.

    Raises:
        AriError: unreachable, refused, or still starting.
    """
    transport = Transport(config.ari_url, config.ari_username, config.ari_password)
    try:
        rest = AriRest(transport, config.ari_app)
        await rest.open()
        yield rest
    finally:
        await transport.close()


def ari_fault(subject: str, error: AriError, remedy: str = "see Asterisk's log") -> Finding:
    """A request that failed; `remedy` is for errors that bring none along."""
    text, own = str(error), ""
    if isinstance(
        error, AriUnauthorized | AriUnreachable
    ):  # their words are ours: the reason, then the remedy
        text, _, own = error.message.partition(": ")
    return Finding(subject, Level.FAILED, text, own or remedy, exit_code=EXIT_ASTERISK)


async def check_ari(rest: AriRest, config: Config) -> Finding:
    """Version and round trip."""
    version = await rest.version()
    started = time.monotonic()
    await rest.ping()
    took_ms = (time.monotonic() - started) * 1000
    return Finding(
        "asterisk",
        Level.OK,
        f"version {version} answers user {config.ari_username} at {config.ari_url} in {took_ms:.1f} ms",
        figures={"version": version, "round_trip_ms": round(took_ms, 1)},
    )


async def check_application(rest: AriRest, config: Config, state_dir: Path) -> Finding:
    """Whether the server's Stasis application is free, or held by whom it should be."""
    subject, name = "application", f"Stasis({config.ari_app})"
    taken = await rest.is_connected(config.ari_app)
    alive = is_alive(state_dir, server_tag(config.ari_app, config.ari_url))
    if not taken and alive:
        remedy = "see the log of serve: it is starting, or has lost its connection"
        return Finding(subject, Level.WARNING, f"serve runs, but {name} is not registered", remedy)
    if not taken:
        return Finding(subject, Level.OK, f"{name} is free; no serve is running")
    if alive:
        return Finding(subject, Level.OK, f"{name} is held by serve on this host")
    return Finding(
        subject,
        Level.WARNING,
        f"{name} is held by a process that is not on this host",
        "if that is not your serve, set ARI_APP to another name here and in the dialplan",
    )


async def check_clock(rest: AriRest) -> Finding:
    """Our clock against Asterisk's: certificates and logs depend on both."""
    theirs = await rest.global_variable("EPOCH")
    if not theirs.isdigit():
        return Finding("clock", Level.SKIPPED, "Asterisk does not tell its time")
    off_s = time.time() - (int(theirs) + 0.5)  # it counts whole seconds
    figures = {"ahead_of_asterisk_s": round(off_s, 1)}
    if abs(off_s) > CLOCK_WARNING_S:
        remedy = "let both hosts synchronise their clocks (NTP)"
        direction = "ahead of" if off_s > 0 else "behind"
        text = f"this host's clock is {abs(off_s):.0f} s {direction} Asterisk's"
        return Finding("clock", Level.WARNING, text, remedy, figures)
    return Finding(
        "clock", Level.OK, f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}, as Asterisk's", figures=figures
    )


async def check_endpoint(rest: AriRest, config: Config) -> Finding:
    """The endpoint that `dial` uses: there, and reachable as far as Asterisk knows."""
    technology, _, target = config.dial_endpoint.partition("/")
    # PJSIP/number@endpoint, or PJSIP/endpoint/sip:number@host
    name = target.partition("/")[0] if "/" in target else target.rpartition("@")[2]
    if technology.upper() != "PJSIP" or "{" in name:
        text = f"DIAL_ENDPOINT {config.dial_endpoint} names no endpoint that can be asked for"
        return Finding("trunk", Level.SKIPPED, text)
    try:
        state = await rest.endpoint_state(technology, name)
    except AriNotFound:
        return Finding(
            "trunk",
            Level.WARNING,
            f"Asterisk has no endpoint {technology}/{name}, so `dial` reaches nobody",
            "set up the trunk, or set DIAL_ENDPOINT to one that exists",
        )
    if state == "offline":
        remedy = "check its address in pjsip.conf, and that it answers OPTIONS"
        return Finding("trunk", Level.WARNING, f"the endpoint {technology}/{name} is offline", remedy)
    known = ", and reachable as far as Asterisk knows" if state == "online" else ""
    text = f"Asterisk has the endpoint {technology}/{name}{known}"
    return Finding("trunk", Level.OK, text, figures={"state": state})


async def check_registration(rest: AriRest, timeout_s: float) -> Finding:
    """Whether the trunk is registered, which may take `timeout_s` after a start of Asterisk."""
    subject = "registration"
    deadline = time.monotonic() + timeout_s
    state = await rest.global_variable(TRUNK_STATE)
    while state not in ("", "none", "Registered") and time.monotonic() < deadline:
        await asyncio.sleep(POLL_S)  # Asterisk has no event for it
        state = await rest.global_variable(TRUNK_STATE)
    if not state:
        text = f"Asterisk does not tell here whether the trunk is registered (no {TRUNK_STATE})"
        return Finding(subject, Level.SKIPPED, text)
    figures = {"state": state}
    if state == "none":
        return Finding(subject, Level.SKIPPED, "no trunk is set up that registers", figures=figures)
    if state == "Registered":
        return Finding(subject, Level.OK, "the trunk is registered", figures=figures)
    if state == "Rejected":
        remedy = "correct SIP_USERNAME, SIP_PASSWORD and SIP_AUTH_USERNAME, as your provider gave them to you"
    else:
        remedy = (
            "check SIP_DOMAIN, SIP_PROXY, SIP_PORT and SIP_TRANSPORT, and the firewall; see Asterisk's log"
        )
    text = f"the trunk is not registered after {timeout_s:g} s: Asterisk says {state}"
    return Finding(subject, Level.FAILED, text, remedy, figures, EXIT_ASTERISK)


# --- the loop ----------------------------------------------------------------------------------------


async def check_loop(config: Config, state_dir: Path) -> Finding:
    """Sound from here through Asterisk and back here, both ways, under an application of our own."""
    app = f"{config.ari_app}-check-{secrets.token_hex(4)}"
    tag = server_tag(app, config.ari_url)
    subject = "rtp loop"
    try:
        config = replace(config, rtp_host=await own_address(config.rtp_host, config.ari_url))
        with Instance(state_dir, tag, config.ari_url, app) as instance:
            heard = await _measure(config, app, instance)
    except TimeoutError:
        remedy = "see Asterisk's log: it needs res_stasis and chan_rtp"
        return Finding(
            subject,
            Level.FAILED,
            "the media channels did not enter the application",
            remedy,
            exit_code=EXIT_ASTERISK,
        )
    except MediaError as error:
        return Finding(
            subject, Level.FAILED, str(error), "correct RTP_HOST or RTP_PORTS", exit_code=EXIT_CONFIG
        )
    except AriFull as error:
        return ari_fault(subject, error, "look again when fewer calls go on, or widen the range in rtp.conf")
    except AriError as error:
        return ari_fault(subject, error, "load chan_rtp and bridge_simple; see Asterisk's log")
    except AriAppError as error:
        remedy = "let this user write to the state directory (XDG_STATE_HOME)"
        return Finding(subject, Level.FAILED, str(error), remedy)
    return loop_finding(*heard, host=config.rtp_host)


async def _measure(config: Config, app: str, instance: Instance) -> tuple[Heard, Heard]:
    loops: list[Loop] = []
    client = AriClient(
        *(config.ari_url, config.ari_username, config.ari_password, app),
        lambda event: loops[0].push_event(event),
        on_connected=Reconciler(instance, set, lambda: loops[0].call_ids),
        retry_first=False,
    )
    loops.append(Loop(client.rest, instance.tag, config.rtp_host, config.rtp_ports))
    async with client:
        running = asyncio.create_task(client.run(), name="check-connection")
        registered = asyncio.create_task(client.registered.wait())
        try:
            await asyncio.wait(
                (running, registered), timeout=REGISTER_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
            )
            if running.done():
                running.result()
            if not registered.done():
                reason = f"Asterisk did not accept an application within {REGISTER_TIMEOUT_S:g} s"
                raise AriUnreachable(f"register {app}", None, reason)
            return await loops[0].measure()
        finally:
            for task in (running, registered):
                task.cancel()
            await asyncio.gather(running, registered, return_exceptions=True)


def loop_finding(there: Heard, back: Heard, *, host: str) -> Finding:
    """The verdict on both directions."""
    worst = max(there.loss_percent, back.loss_percent)
    delay_ms = max(there.delay_ms, back.delay_ms)
    longest_ms = max(there.delay_max_ms, back.delay_max_ms)
    gain_db = max(there.gain_db, back.gain_db, key=abs)
    figures: dict[str, float | str] = {
        "delay_ms": round(delay_ms, 2),
        "delay_max_ms": round(longest_ms, 2),
        "loss_percent": round(worst, 1),
        "gain_db": round(gain_db, 2),
        "packets": there.sent + back.sent,
        "foreign_packets": there.foreign + back.foreign,
    }
    if not there.received and not back.received:
        return Finding(
            "rtp loop",
            Level.FAILED,
            f"Asterisk took the call, but no sound came back to {host}",
            "set RTP_HOST to our address as Asterisk reaches it, and let UDP pass both ways",
            figures,
            EXIT_ASTERISK,
        )
    text = (
        f"{delay_ms:.1f} ms through Asterisk (at most {longest_ms:.1f}), {worst:.1f} % lost, "
        f"level {gain_db:+.1f} dB, both ways"
    )
    if worst > LOSS_FAILED_PERCENT:
        remedy = "look for a firewall, an overloaded host or a bad network between here and Asterisk"
        return Finding("rtp loop", Level.FAILED, text, remedy, figures, EXIT_ASTERISK)
    if worst > LOSS_WARNING_PERCENT or delay_ms > DELAY_WARNING_MS or abs(gain_db) > GAIN_WARNING_DB:
        remedy = (
            "callers will hear it: look at the load of this host, the network, and VOLUME() in the dialplan"
        )
        return Finding("rtp loop", Level.WARNING, text, remedy, figures)
    return Finding("rtp loop", Level.OK, text, figures=figures)
