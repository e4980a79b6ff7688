"""The limit: more callers than Asterisk has ports. Shell."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack

from ari_app.ari.streams import ports_for
from ari_app.demo.asterisk import AsteriskSettings
from tests.faults.course import Note
from tests.faults.lane import Lane

ROOM_FOR = 20
FIRST_PORT = 21_000
"""Beyond the range of all other Asterisks of the tests."""
BURST = 8
TAKEN = 1
"""Streams' worth of ports that something else on the machine has taken."""


async def full_house(lane: Lane) -> Note:
    """Asterisk's own RTP range is used up: one more caller is refused cleanly, and nobody notices."""
    note = Note("limit", f"RTP range of {ROOM_FOR} calls used up", "throughout", "pipeline")
    began = asyncio.get_running_loop().time()
    async with (
        lane.session("pipeline", {"GREETING": "", "MODE": "echo"}) as session,
        AsyncExitStack() as stack,
    ):
        for port in range(FIRST_PORT, FIRST_PORT + 2 * TAKEN):
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(("0.0.0.0", port))
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
        await asyncio.sleep(1)
        burst = [await stack.enter_async_context(lane.phone()) for _ in range(ROOM_FOR + BURST)]
        ends = await asyncio.gather(
            *(phone.dial(lane.asterisk.bot_extension) for phone in burst), return_exceptions=True
        )
        note.remarks.append(f"{len(burst)} at once: {ends.count(200)} taken")
        if any(isinstance(end, BaseException) for end in ends):
            note.problems.append("a caller of many at once got no answer at all")
        for phone in burst:
            if phone.status == 200:
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
    return AsteriskSettings(rtp_start=FIRST_PORT, rtp_end=FIRST_PORT + ports_for(ROOM_FOR) - 1)
