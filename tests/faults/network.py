"""Faults of the network between the caller and Asterisk, and who else sends on it. Shell."""

from __future__ import annotations

import asyncio
import random
import sys
from dataclasses import replace

from ari_app.demo.measure import socket_rows
from tests.faults.course import SENTENCE, Case, Course
from tests.faults.phone import Line, Packet


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


WITH_HOLES = ("20 % loss", "bursts of loss", "200 ms jitter")
MATCH_WITH_HOLES = 0.75
"""What is lost is concealed, not made up: so much of the loudness from moment to moment is that of the sentence."""


def _understood(course: Course, case: Case, turns: int) -> None:
    """The application noted each of the turns and no other, and where the engine listens, word for word."""
    said = [e["text"] for e in course.session.events(course.phone.call_id) if e["event"] == "caller_said"]
    course.note.remarks.append(f"understood: {said}")
    if len(said) != turns:
        course.blame(f"{turns} turns became {len(said)}")
    if case.mode == "pipeline" and set(said) != {SENTENCE}:
        course.blame(f"the caller said {turns} times {SENTENCE!r}, and was taken for {said}")


async def bad_line(course: Course, case: Case) -> None:
    """The caller is understood all the same, and the bot answers."""
    course.phone.line = LINES[case.fault]
    if case.fault in WITH_HOLES:
        course.lane.engine.match = MATCH_WITH_HOLES
    status = await course.phone.dial(course.lane.asterisk.bot_extension)
    if status != 200:
        course.blame(f"the call was refused with {status}")
        return
    await course.greeted()
    await course.talk(3)
    if course.note.ending != "went on" or len(course.note.waits_ms) < 3:
        course.blame(f"only {len(course.note.waits_ms)} of 3 turns were answered; {course.note.ending}")
    _understood(course, case, 3)
    if not course.phone.ended.is_set():
        course.phone.hang_up()
    await course.hear_witness()
    await course.check_left()


INTRUDER = """
import socket, sys, time
port, seconds = int(sys.argv[1]), float(sys.argv[2])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
loud, start = bytes(range(0, 160, 2)) * 4, time.monotonic()
for number in range(int(seconds * 50)):
    header = bytes([0x80, 10]) + number.to_bytes(2, "big") + (number * 160).to_bytes(4, "big") + b"spy!"
    sock.sendto(header + loud, ("127.0.0.1", port))
    time.sleep(max(start + number / 50 - time.monotonic(), 0))
"""
INTRUDER_S = 12.0


async def wrong_source(course: Course, case: Case) -> None:
    """Somebody speaks to the application's RTP port in good order and at the right pace: nobody hears them."""
    assert await course.phone.dial(course.lane.asterisk.bot_extension) == 200
    await course.greeted()
    began_at = asyncio.get_running_loop().time()
    intruder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", INTRUDER, str(_newest_udp_port(course.session.process.pid)), str(INTRUDER_S))
    )
    try:
        await asyncio.sleep(4)
        if course.phone.hearing.first_sound_after(began_at) is not None:
            course.blame("the bot answered somebody who is not the caller")
        await course.talk(2)
    finally:
        if intruder.returncode is None:
            intruder.kill()
        await intruder.wait()
    _understood(course, case, 2)
    await course.went_on()


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
    _understood(course, case, 2)
    course.phone.hang_up()
    await course.hear_witness()
    await course.check_left()


def _newest_udp_port(pid: int) -> int:
    """Of the call that came last: the socket with the highest inode."""
    return max((int(row[9]), int(row[1].partition(":")[2], 16)) for row in socket_rows(pid, "udp"))[1]
