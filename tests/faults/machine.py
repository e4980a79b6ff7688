"""Faults of Asterisk, the application, the machine and the connections between them. Shell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

from ari_app.ari.reconcile import SWEEP_EVERY_S
from tests.faults.course import WITNESSED_S, Case, Course
from tests.faults.surroundings import CLOCK_STEPS, CLOCK_VARIABLE, set_clock

BACK_WITHIN_S = 2.0
"""So long after Asterisk is up again the next caller hears the bot."""
STARTED_WITHIN_S = 12.0
"""The same after a supervisor has started the application anew, which takes Python some seconds on a full machine."""
ENDED_WITHIN_S = 2.0
"""So long after all is up again who lost the other half of a call is told."""
RECOVERED_WITHIN_S = 40.0
AWAY_S = 5.0
"""The dialplan's tone for callers whom nobody can help."""


async def ari_cut(course: Course, case: Case) -> None:
    """The event connection is reset; calls in conversation do not notice."""

    async def cut() -> None:
        course.lane.ari.cut()

    await _goes_on(course, case, cut)


async def ari_half_open(course: Course, case: Case) -> None:
    """The connection to ARI stands still for five seconds; who speaks with the bot does not notice."""
    thawing: list[asyncio.Task[None]] = []

    async def thaw() -> None:
        await asyncio.sleep(5)
        course.lane.ari.thaw()

    async def freeze() -> None:
        course.lane.ari.freeze()
        thawing.append(asyncio.create_task(thaw()))

    await _goes_on(course, case, freeze)
    await asyncio.gather(*thawing)


async def paused(course: Course, case: Case) -> None:
    """The application stands still for three seconds, then goes on."""
    pid = course.session.process.pid

    async def resume() -> None:
        await asyncio.sleep(3)
        os.kill(pid, signal.SIGCONT)

    resuming: list[asyncio.Task[None]] = []

    async def stop() -> None:
        os.kill(pid, signal.SIGSTOP)
        resuming.append(asyncio.create_task(resume()))

    if case.moment == "hanging up":
        await course.strike_at(case.moment, stop)
    else:
        # What happens while nobody is there to do it is no dead air of ours.
        await course.strike_at(case.moment, stop)
        course.note.problems = [
            p for p in course.note.problems if not p.startswith(("dead air", "nothing was"))
        ]
        course.note.waits_ms.clear()
        await asyncio.gather(*resuming)
        await course.quiet()
        await course.talk(2)
        if course.note.ending != "went on":
            course.blame("the call did not go on")
        course.phone.hang_up()
    await asyncio.gather(*resuming)
    await course.hear_witness(paused_ms=3000)
    await course.check_left()


async def no_descriptors(course: Course, case: Case) -> None:
    """No file can be opened any more; the calls that go on do not notice, new ones are refused."""
    pid = course.session.process.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)

    async def use_up() -> None:
        used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        first_free = next(number for number in count() if number not in used)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (first_free, usual[1]))

    if case.moment == "ringing":
        await use_up()
        status = await course.phone.dial(course.lane.asterisk.bot_extension)
        course.note.ending = f"SIP {status}"
        if status != 503:
            course.blame("a call was taken for which there is no descriptor")
    elif await course.strike_at(case.moment, use_up):
        await course.talk(2)
    await asyncio.sleep(SWEEP_EVERY_S)  # the sweep meets it too, and has to live on
    resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
    if course.phone.status == 200 and not course.phone.ended.is_set():
        course.phone.hang_up()
    await course.hear_witness()
    await course.lane.leave_bridge()
    await course.check_left()
    await _next_call(course)


async def application_killed(course: Course, case: Case) -> None:
    """kill -9, and a supervisor that starts it again: it sweeps, the callers are told, the next call is taken."""

    async def kill() -> None:
        await course.session.process.kill()

    await _after_a_crash(course, case, kill, course.session.start, STARTED_WITHIN_S)


async def asterisk_killed(course: Course, case: Case) -> None:
    """kill -9 of Asterisk, started again."""
    old = course.lane.asterisk

    async def kill() -> None:
        assert old.pid is not None
        os.kill(old.pid, signal.SIGKILL)
        await old.wait()
        await old.stop()

    await _after_a_crash(course, case, kill, course.lane.start_asterisk)


async def asterisk_restarted(course: Course, case: Case) -> None:
    """`core restart now`."""

    async def restart() -> None:
        with contextlib.suppress(Exception):  # it goes without an answer
            await course.lane.asterisk.rx("core restart now")

    async def come_back() -> None:
        """By itself, or where its program can't be found by itself any more, by a supervisor."""
        await asyncio.sleep(1)
        if not await course.lane.asterisk_is_up():
            await course.lane.asterisk.stop()
            await course.lane.start_asterisk()

    await _after_a_crash(course, case, restart, come_back)


async def disk_full(course: Course, case: Case) -> None:
    """The file system of the recordings becomes full: that costs the recording only."""

    async def fill() -> None:
        await asyncio.to_thread(_fill, Path(course.session.settings["RECORDINGS_DIR"]) / "filler")

    await _goes_on(course, case, fill)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


async def clock_steps(course: Course, case: Case) -> None:
    """The clock is set, as by an administrator or a time server: nothing in a call goes by it."""

    async def step() -> None:
        set_clock(Path(course.session.settings[CLOCK_VARIABLE]), CLOCK_STEPS[case.fault])

    await _goes_on(course, case, step)


async def _after_a_crash(
    course: Course,
    case: Case,
    strike: Callable[[], Awaitable[None]],
    come_back: Callable[[], Awaitable[None]],
    within_s: float = BACK_WITHIN_S,
) -> None:
    phone, note = course.phone, course.note
    before: list[str] = []

    async def strike_noted() -> None:
        before[:] = note.problems
        await strike()

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            await course.strike_at(case.moment, strike_noted)
    note.problems[:] = before  # since then nobody was there to be heard
    note.waits_ms.clear()
    up_at = await _recovered(course, come_back)
    await _next_call(course)
    after_s = asyncio.get_running_loop().time() - up_at
    note.remarks.append(f"the next call was heard {after_s:.1f} s after Asterisk was up")
    if after_s > within_s:
        course.blame(f"the next call was heard {after_s:.1f} s after Asterisk was up")
    if case.fault == "kill -9 of the application" and phone.status == 200:
        told = await course.until(phone.ended.is_set, ENDED_WITHIN_S + AWAY_S)
        if not told:
            course.blame("the caller whose bot died was left alone")
    note.ending = "ended" if phone.ended.is_set() else "lost"
    await course.check_left()


async def _recovered(course: Course, come_back: Callable[[], Awaitable[None]]) -> float:
    """Wait until both are up and know each other; returns since when Asterisk is, or the application is started."""
    loop = asyncio.get_running_loop()
    began_at, up_at = loop.time(), 0.0
    coming = asyncio.ensure_future(come_back())
    while loop.time() < began_at + RECOVERED_WITHIN_S:
        if not up_at and await course.lane.asterisk_is_up():
            up_at = loop.time()
        if up_at and await course.session.registered():
            break
        await asyncio.sleep(0.05)
    else:
        course.blame("the application did not come back")
    await coming
    course.note.remarks.append(f"registered {loop.time() - up_at:.1f} s after Asterisk was up")
    return up_at


async def _goes_on(course: Course, case: Case, strike: Callable[[], Awaitable[None]]) -> None:
    """The fault is nothing that a caller hears of."""
    if await course.strike_at(case.moment, strike):
        await course.talk(2)
        if course.note.ending != "went on":
            course.blame("the call did not go on")
        course.phone.hang_up()
    elif case.moment == "ringing":
        # Who calls in the moment without a connection.
        course.note.ending = "told that the bot is away"
        if case.fault not in ("ARI connection cut", "ARI connection half-open"):
            course.blame("the call did not come about")
    await asyncio.sleep(max(course.struck_at + WITNESSED_S - asyncio.get_running_loop().time(), 0))
    course.lane.ari.thaw()
    await course.hear_witness()
    await course.check_left()


async def _next_call(course: Course) -> None:
    async with course.lane.phone() as other:
        status = await other.dial(course.lane.asterisk.bot_extension)
        if status != 200:
            course.blame(f"the next call was refused with {status}")
            return
        if not await course.until(lambda: bool(other.hearing.sounds), 3):
            course.blame("the next caller heard nothing")
        other.hang_up()
