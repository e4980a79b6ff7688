"""The table of faults: who fails, how, and what must be true afterwards. Shell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ari_app.demo.asterisk import AsteriskSettings
from tests.faults.course import MOMENTS, Course, Note
from tests.faults.engine import FAULTS
from tests.faults.lane import Lane
from tests.faults.phone import FRAME_BYTES, Line, Packet

MODES = ("pipeline", "realtime")
ENDED_WITHIN_S = 2.0
"""So long after all is up again the next call is taken, and who lost the other half of a call is told."""
LONGEST_S = 240.0
"""A cell that takes longer has failed; the slowest took 110 s."""
AWAY_S = 5.0
"""The dialplan's tone for callers whom nobody can help."""


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    group: str
    fault: str
    moment: str
    mode: str

    @property
    def name(self) -> str:
        return f"{self.group}: {self.fault}, {self.moment}, {self.mode}"


Procedure = Callable[[Course, Case], Awaitable[None]]


@asynccontextmanager
async def on_course(lane: Lane, case: Case, utterance: bytes, more: dict[str, str]) -> AsyncIterator[Course]:
    """Application, witness and caller; afterwards nothing of them may be left."""
    note = Note(case.group, case.fault, case.moment, case.mode)
    async with lane.session(case.mode, more) as session, lane.phone() as witness, lane.phone() as phone:
        course = Course(lane, session, note, utterance)
        course.phone = phone
        await course.place_witness(witness)
        yield course


# --- engines -----------------------------------------------------------------------------------------


def _stages(case: Case) -> tuple[str, ...]:
    """Which stage fails: each meets each fault at two moments."""
    if case.mode == "realtime":
        return ("realtime",)
    if case.fault == "refused":
        return ("stt", "chat", "tts")
    return (("stt", "chat", "tts")[MOMENTS.index(case.moment) % 3],)


async def engine(course: Course, case: Case) -> None:
    """An engine fails at a moment and for good; the caller is told, and what the policy says happens."""
    faulty = course.lane.engine
    if await course.strike_at(case.moment, lambda: faulty.arm(case.fault, *_stages(case))):
        await course.talk()
    if not course.phone.ended.is_set():
        course.phone.hang_up()
    course.note.ending = course.note.ending or "given up"
    course.hear_witness(undisturbed=case.mode == "pipeline" or case.moment == "hanging up")
    await course.check_left(course.before)


# --- Asterisk, the application, the machine ----------------------------------------------------------


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
    course.hear_witness(undisturbed=False)
    await course.check_left(course.before)


async def no_descriptors(course: Course, case: Case) -> None:
    """No file can be opened any more; the calls that go on do not notice, new ones are refused."""
    pid = course.session.process.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)

    async def use_up() -> None:
        used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, usual[1]))

    if case.moment == "ringing":
        await use_up()
        status = await course.phone.dial(course.lane.asterisk.bot_extension)
        course.note.ending = f"SIP {status}"
        if status == 200:  # some were free below the limit
            await course.greeted()
    elif await course.strike_at(case.moment, use_up):
        await course.talk(2)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
    if course.phone.status == 200 and not course.phone.ended.is_set():
        course.phone.hang_up()
    course.hear_witness()
    await course.check_left(course.before)
    await _next_call(course)


async def application_killed(course: Course, case: Case) -> None:
    """kill -9, and a supervisor that starts it again: it sweeps, the callers are told, the next call is taken."""

    async def kill() -> None:
        await course.session.process.kill()

    await _after_a_crash(course, case, kill, course.session.start)


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


async def _after_a_crash(
    course: Course,
    case: Case,
    strike: Callable[[], Awaitable[None]],
    come_back: Callable[[], Awaitable[None]],
) -> None:
    phone = course.phone
    try:
        async with asyncio.timeout(20):
            await course.strike_at(case.moment, strike)
    except TimeoutError:
        pass
    course.note.problems.clear()  # nobody is there to be heard
    course.note.waits_ms.clear()
    await come_back()
    await _recovered(course)
    if case.fault == "kill -9 of the application" and phone.status == 200:
        told = await course.until(phone.ended.is_set, ENDED_WITHIN_S + AWAY_S)
        if not told:
            course.blame("the caller whose bot died was left alone")
    course.note.ending = "ended" if phone.ended.is_set() else "lost"
    await _next_call(course)
    before = replace(course.before, channels=0, bridges=0, udp_sockets=0)
    await course.check_left(before)


async def _recovered(course: Course) -> None:
    """Wait until both are up, and note how long after Asterisk the application was."""
    loop = asyncio.get_running_loop()
    up_at = 0.0
    for _ in range(300):
        if not up_at and await course.lane.asterisk_is_up():
            up_at = loop.time()
        if up_at and await course.session.registered():
            after_s = loop.time() - up_at
            course.note.remarks.append(f"registered {after_s:.1f} s after Asterisk was up")
            if after_s > ENDED_WITHIN_S:
                course.blame(f"the application took {after_s:.1f} s to come back")
            return
        await asyncio.sleep(0.1)
    course.blame("the application did not come back")


async def _goes_on(course: Course, case: Case, strike: Callable[[], Awaitable[None]]) -> None:
    """The fault is nothing that a caller hears of."""
    if await course.strike_at(case.moment, strike):
        await course.talk(2)
        if course.note.ending != "went on":
            course.blame("the call did not go on")
        course.phone.hang_up()
    elif case.moment == "ringing":
        course.note.ending = "told that the bot is away"
    course.lane.ari.thaw()
    course.hear_witness()
    await course.check_left(course.before)


async def _next_call(course: Course) -> None:
    async with course.lane.phone() as other:
        status = await other.dial(course.lane.asterisk.bot_extension)
        if status != 200:
            course.blame(f"the next call was refused with {status}")
            return
        if not await course.until(lambda: bool(other.hearing.sounds), 4):
            course.blame("the next caller heard nothing")
        other.hang_up()
        await asyncio.sleep(0.2)


# --- the network between caller and Asterisk ---------------------------------------------------------


def losing(share: float) -> Line:
    return lambda packet, chance: [] if chance.random() < share else [(0.0, packet)]


def in_bursts(packet: Packet, chance: random.Random) -> list[tuple[float, Packet]]:
    """Ten packets of each hundred, in a row."""
    return [] if packet.number % 100 < 10 else [(0.0, packet)]


def reordering(packet: Packet, chance: random.Random) -> list[tuple[float, Packet]]:
    return [(0.05 if packet.number % 7 == 0 else 0.0, packet)]


def duplicating(packet: Packet, chance: random.Random) -> list[tuple[float, Packet]]:
    return [(0.0, packet), (0.01, packet)]


def jittering(packet: Packet, chance: random.Random) -> list[tuple[float, Packet]]:
    return [(chance.uniform(0.001, 0.2), packet)]


def changing_ssrc(packet: Packet, chance: random.Random) -> list[tuple[float, Packet]]:
    return [(0.0, replace(packet, ssrc=packet.ssrc + packet.number // 150))]


def changing_payload(packet: Packet, chance: random.Random) -> list[tuple[float, Packet]]:
    """Now and then a type that nobody agreed upon."""
    return [(0.0, replace(packet, payload_type=8) if packet.number % 20 == 0 else packet)]


def suppressing_silence(packet: Packet, chance: random.Random) -> list[tuple[float, Packet]]:
    return [] if packet.silent else [(0.0, packet)]


def followed_by_strangers(packet: Packet, chance: random.Random) -> list[tuple[float, Packet]]:
    """Each packet is followed by noise of another stream from the same address."""
    noise = Packet(packet.number + 7777, packet.ssrc ^ 0xFFFF, chance.randbytes(FRAME_BYTES))
    return [(0.0, packet), (0.005, noise)]


LINES: dict[str, Line] = {
    "1 % loss": losing(0.01),
    "5 % loss": losing(0.05),
    "20 % loss": losing(0.20),
    "bursts of loss": in_bursts,
    "reordering": reordering,
    "duplicates": duplicating,
    "200 ms jitter": jittering,
    "SSRC changes": changing_ssrc,
    "payload type changes": changing_payload,
    "silence suppression": suppressing_silence,
}


async def bad_line(course: Course, case: Case) -> None:
    """The caller is understood all the same, and the bot answers."""
    course.phone.line = LINES[case.fault]
    await _converse(course)


async def _converse(course: Course) -> None:
    status = await course.phone.dial(course.lane.asterisk.bot_extension)
    if status != 200:
        course.blame(f"the call was refused with {status}")
        return
    await course.greeted()
    await course.talk(3)
    if course.note.ending != "went on" or len(course.note.waits_ms) < 3:
        course.blame(f"only {len(course.note.waits_ms)} of 3 turns were answered; {course.note.ending}")
    if not course.phone.ended.is_set():
        course.phone.hang_up()
    course.hear_witness()
    await course.check_left(course.before)


FLOOD = """
import socket, sys, time, random
port, seconds, rate = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
packets = [bytes([0x80, 10]) + random.randbytes(10) + random.randbytes(320) for _ in range(64)]
start, sent = time.monotonic(), 0
while (now := time.monotonic() - start) < seconds:
    due = int(now * rate)
    while sent < due:
        try:
            sock.sendto(packets[sent % 64], ("127.0.0.1", port))
        except OSError:
            pass
        sent += 1
    time.sleep(0.0005)
print(sent)
"""
FLOOD_S, FLOOD_PER_S = 6.0, 50_000


async def flood(course: Course, case: Case) -> None:
    """Somebody sends 50,000 packets a second to the application's RTP port of the call."""
    status = await course.phone.dial(course.lane.asterisk.bot_extension)
    assert status == 200
    await course.greeted()
    port = _newest_udp_port(course.session.process.pid)
    flooder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FLOOD, str(port), str(FLOOD_S), str(FLOOD_PER_S)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        await course.talk(2)
        sent, _ = await flooder.communicate()
    finally:
        if flooder.returncode is None:
            flooder.kill()
            await flooder.wait()
    course.note.remarks.append(f"{int(sent)} foreign packets in {FLOOD_S:g} s")
    if course.note.ending != "went on" or len(course.note.waits_ms) < 2:
        course.blame("the conversation did not go on")
    course.phone.hang_up()
    course.hear_witness()
    await course.check_left(course.before)


def _newest_udp_port(pid: int) -> int:
    """Of the call that came last: the socket with the highest inode."""
    held = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            held.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/udp").read_text("ascii").splitlines()[1:]]
    ours = [(int(row[9]), int(row[1].partition(":")[2], 16)) for row in rows if f"socket:[{row[9]}]" in held]
    return max(ours)[1]


# --- SIP ---------------------------------------------------------------------------------------------


async def hung_up_at_once(course: Course, case: Case) -> None:
    """Ten callers one after the other hang up within 10 ms of the answer."""
    for number in range(10):
        async with course.lane.phone() as phone:
            if await phone.dial(course.lane.asterisk.bot_extension) == 200:
                await asyncio.sleep(number / 1000)
                phone.hang_up()
    course.note.ending = "hung up"
    course.hear_witness()
    await course.check_left(course.before)


async def cancelled(course: Course, case: Case) -> None:
    """CANCEL at every moment of the set-up, until it is too late for one."""
    statuses = []
    for after_ms in (0, 1, 2, 4, 6, 8, 10, 12, 15, 20, 30, 50):
        async with course.lane.phone() as phone:
            status = await phone.dial_and_cancel(course.lane.asterisk.bot_extension, after_ms / 1000)
            statuses.append(status)
            if status == 200:
                phone.hang_up()
            elif status != 487:
                course.blame(f"a cancelled call ended with {status}")
    course.note.ending = "hung up"
    course.note.remarks.append(f"{statuses.count(487)} of {len(statuses)} were in time")
    course.hear_witness()
    await course.check_left(course.before)


async def held(course: Course, case: Case) -> None:
    """Re-INVITE to hold, three seconds, and back: the conversation goes on."""
    assert await course.phone.dial(course.lane.asterisk.bot_extension) == 200
    await course.greeted()
    await course.turn()
    course.phone.hold(True)
    await asyncio.sleep(3)
    course.phone.hold(False)
    await course.until(lambda: len(course.phone.replies) >= 2, 3)
    if course.phone.replies != [200, 200]:
        course.blame(f"the re-INVITEs were answered with {course.phone.replies}")
    await asyncio.sleep(0.5)
    await course.talk(2)
    if course.note.ending != "went on":
        course.blame("the call did not go on")
    if "holds the call" not in course.session.process.log():
        course.blame("nobody noticed that the call was held")
    course.phone.hang_up()
    course.hear_witness()
    await course.check_left(course.before)


async def no_rtp(course: Course, case: Case) -> None:
    """A phone that never sends a packet, such as one behind a firewall: it is named and ended."""
    course.phone.mute = True
    assert await course.phone.dial(course.lane.asterisk.bot_extension) == 200
    await course.until(course.phone.ended.is_set, 45)
    course.note.ending = "given up" if course.phone.ended.is_set() else "went on"
    if not course.phone.ended.is_set():
        course.blame("a dead line stayed open for 45 s")
        course.phone.hang_up()
    elif "no audio from the caller" not in course.session.process.log():
        course.blame("the log does not say that no audio came")
    course.hear_witness()
    await course.check_left(course.before)


async def referred(course: Course, case: Case) -> None:
    """REFER: nobody moves the call elsewhere, and it goes on."""
    assert await course.phone.dial(course.lane.asterisk.bot_extension) == 200
    await course.greeted()
    course.phone.refer("123")
    await course.talk(2)
    if not course.phone.replies or course.phone.replies[0] < 400:
        course.blame(f"the REFER was answered with {course.phone.replies}")
    if course.note.ending != "went on":
        course.blame("the call did not go on")
    course.phone.hang_up()
    course.hear_witness()
    await course.check_left(course.before)


# --- the table ---------------------------------------------------------------------------------------

THROUGHOUT = ("throughout",)
MACHINE: dict[str, Procedure] = {
    "ARI connection cut": ari_cut,
    "ARI connection half-open": ari_half_open,
    "application paused for 3 s": paused,
    "descriptors used up": no_descriptors,
    "kill -9 of the application": application_killed,
    "kill -9 of Asterisk": asterisk_killed,
    "core restart now": asterisk_restarted,
}
SIP: dict[str, Procedure] = {
    "hung up within 10 ms": hung_up_at_once,
    "CANCEL race": cancelled,
    "hold and resume": held,
    "no RTP at all": no_rtp,
    "REFER": referred,
}


def table() -> list[tuple[Case, Procedure]]:
    """Every cell."""
    cells: list[tuple[Case, Procedure]] = []
    for mode in MODES:
        cells += [(Case("engine", fault, at, mode), engine) for fault in FAULTS for at in MOMENTS]
        cells += [(Case("machine", fault, at, mode), go) for fault, go in MACHINE.items() for at in MOMENTS]
        cells += [(Case("RTP", fault, at, mode), bad_line) for fault in LINES for at in THROUGHOUT]
        cells += [(Case("RTP", "flood of foreign packets", at, mode), flood) for at in THROUGHOUT]
        cells += [(Case("SIP", fault, at, mode), go) for fault, go in SIP.items() for at in THROUGHOUT]
    return cells


async def run(lane: Lane, case: Case, procedure: Procedure, utterance: bytes) -> Note:
    """One cell."""
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(LONGEST_S), on_course(lane, case, utterance, {}) as course:
        if course.witness is not None:
            await procedure(course, case)
        note = course.note
    note.took_s = round(asyncio.get_running_loop().time() - began, 1)
    return note


# --- the limit ---------------------------------------------------------------------------------------

ROOM_FOR = 20
PORTS_PER_CALL = 4
"""In Asterisk: RTP and RTCP, for the caller and for the application."""


async def full_house(lane: Lane) -> Note:
    """Asterisk's own RTP range is used up: one more caller is refused cleanly, and nobody notices."""
    note = Note("limit", f"RTP range of {ROOM_FOR} calls used up", "throughout", "pipeline")
    began = asyncio.get_running_loop().time()
    async with (
        lane.session("pipeline", {"GREETING": "", "MODE": "echo"}) as session,
        AsyncExitStack() as stack,
    ):
        before = await session.left()
        statuses, phones = [], []
        for _ in range(ROOM_FOR + 3):
            phone = await stack.enter_async_context(lane.phone())
            statuses.append(await phone.dial(lane.asterisk.bot_extension))
            phones.append(phone)
            await asyncio.sleep(0.1)
        answered = [phone for phone in phones if phone.status == 200]
        note.remarks.append(f"answers: {statuses}")
        if statuses[:ROOM_FOR] != [200] * ROOM_FOR:
            note.problems.append(f"not all of the first {ROOM_FOR} were taken")
        if any(status < 400 for status in statuses[ROOM_FOR:]):
            note.problems.append("one caller too many was answered")
        heard = [len(phone.hearing.times) for phone in answered]
        await asyncio.sleep(2)
        for phone, count in zip(answered, heard, strict=True):
            if len(phone.hearing.times) - count < 90:
                note.problems.append("a caller who was there heard nothing for a while")
            phone.hang_up()
        if not await lane.asterisk_is_up():
            note.problems.append("Asterisk died")
        if more := await session.leftovers(before):
            note.problems.append(f"left behind: {more}")
        again = await stack.enter_async_context(lane.phone())
        if await again.dial(lane.asterisk.bot_extension) != 200:
            note.problems.append("afterwards nobody was taken any more")
        else:
            again.hang_up()
        note.problems += [f"in the log: {line[:160]}" for line in session.faults_in_log()[:3]]
        if note.problems:
            note.log = session.process.log()[-20_000:]
    note.ending = "refused"
    note.took_s = round(asyncio.get_running_loop().time() - began, 1)
    return note


def narrow() -> AsteriskSettings:
    """An Asterisk with room for ROOM_FOR calls."""
    first = 10_000
    return AsteriskSettings(rtp_start=first, rtp_end=first + ROOM_FOR * PORTS_PER_CALL - 1)
