"""Asterisk's side: ARI, the Stasis application, the trunk, the RTP loop. Shell."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
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
from ari_app.errors import AriAppError, AriError, AriNotFound, AriUnauthorized, AriUnreachable, MediaError
from ari_app.rtp.endpoint import own_address

REGISTER_TIMEOUT_S = 10.0
LOSS_WARNING_PERCENT, LOSS_FAILED_PERCENT = 1.0, 10.0
DELAY_WARNING_MS = 100.0
"""One way through Asterisk takes under a millisecond on one host; a caller notices from about 150 ms on."""
GAIN_WARNING_DB = 1.0
CLOCK_WARNING_S = 5.0

ReadRegistration = Callable[[AriRest], Awaitable[str]]
"""The trunk's state in Asterisk's words: `Registered`, any other word, or nothing when there is no trunk."""


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


def unreachable(config: Config, error: AriError) -> Finding:
    """Why there is no connection, and what to do."""
    if isinstance(error, AriUnauthorized):
        remedy = "set ARI_USERNAME and ARI_PASSWORD as they stand in ari.conf"
    elif isinstance(error, AriUnreachable):
        remedy = "start Asterisk, or correct ARI_URL"
    else:
        remedy = "see Asterisk's log"
    return Finding("asterisk", Level.FAILED, str(error), remedy, exit_code=EXIT_ASTERISK)


async def check_ari(rest: AriRest, config: Config) -> Finding:
    """Version and round trip."""
    version = await rest.version()
    started = time.monotonic()
    await rest.ping()
    took_ms = (time.monotonic() - started) * 1000
    return Finding(
        "asterisk",
        Level.OK,
        f"{version} answers user {config.ari_username} at {config.ari_url} in {took_ms:.0f} ms",
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
    off_s = time.time() - int(theirs)
    figures = {"ahead_of_asterisk_s": round(off_s, 1)}
    if abs(off_s) > CLOCK_WARNING_S:
        remedy = "let both hosts synchronise their clocks (NTP)"
        return Finding(
            "clock", Level.WARNING, f"{abs(off_s):.0f} s off against Asterisk's clock", remedy, figures
        )
    return Finding(
        "clock", Level.OK, f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}, as Asterisk's", figures=figures
    )


async def check_trunk(
    rest: AriRest, config: Config, read_registration: ReadRegistration | None, timeout_s: float
) -> list[Finding]:
    """The endpoint that `dial` uses, and its registration, which may take `timeout_s` after a start."""
    findings = [await _check_endpoint(rest, config)]
    if read_registration is None:
        text = "Asterisk does not tell here whether the trunk is registered"
        return [*findings, Finding("registration", Level.SKIPPED, text)]
    deadline = time.monotonic() + timeout_s
    state = await read_registration(rest)
    while state not in ("", "Registered") and time.monotonic() < deadline:
        await asyncio.sleep(0.5)  # Asterisk has no event for it
        state = await read_registration(rest)
    if state == "Registered":
        return [*findings, Finding("registration", Level.OK, "the trunk is registered")]
    if not state:
        return [*findings, Finding("registration", Level.SKIPPED, "no trunk is set up that registers")]
    finding = Finding(
        "registration",
        Level.FAILED,
        f"the trunk is not registered after {timeout_s:g} s ({state})",
        "check SIP_DOMAIN, SIP_USERNAME, SIP_PASSWORD and SIP_TRANSPORT, and what Asterisk's log says of REGISTER",
        exit_code=EXIT_ASTERISK,
    )
    return [*findings, finding]


async def _check_endpoint(rest: AriRest, config: Config) -> Finding:
    technology, _, rest_of_it = config.dial_endpoint.partition("/")
    name = rest_of_it.rpartition("@")[2]
    if technology.upper() != "PJSIP" or "{" in name or "/" in name:
        return Finding(
            "trunk", Level.SKIPPED, f"{config.dial_endpoint} names no endpoint that can be asked for"
        )
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
        remedy = "check that its host answers OPTIONS, and the address in pjsip.conf"
        return Finding("trunk", Level.WARNING, f"the endpoint {technology}/{name} is offline", remedy)
    return Finding(
        "trunk", Level.OK, f"the endpoint {technology}/{name} is {state}", figures={"state": state}
    )


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
    except AriError as error:
        remedy = "allow the ARI user to write (read_only = no), and load chan_rtp and bridge_simple"
        return Finding(subject, Level.FAILED, str(error), remedy, exit_code=EXIT_ASTERISK)
    except AriAppError as error:
        return Finding(subject, Level.FAILED, str(error), "make the state directory writable")
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
            async with asyncio.timeout(REGISTER_TIMEOUT_S):
                await asyncio.wait((running, registered), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            return await loops[0].measure()
        finally:
            for task in (running, registered):
                task.cancel()
            with contextlib.suppress(AriError):
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
