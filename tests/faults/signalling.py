"""Faults of signalling, by callers and the called. Shell."""

from __future__ import annotations

import asyncio

from tests.faults.course import Case, Course
from tests.faults.surroundings import OUTSIDE


async def hung_up_at_once(course: Course, case: Case) -> None:
    """Ten callers one after the other hang up within 10 ms of the answer."""
    for number in range(10):
        async with course.lane.phone() as phone:
            if await phone.dial(course.lane.asterisk.bot_extension) == 200:
                await asyncio.sleep(number / 1000)
                phone.hang_up()
    course.note.ending = "hung up"
    await course.hear_witness()
    await course.check_left()


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
    await course.hear_witness()
    await course.check_left()


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
    await course.hear_witness()
    await course.check_left()


async def no_rtp(course: Course, case: Case) -> None:
    """A phone that never sends a packet, such as one behind a firewall: it is named and ended."""
    course.phone.mute = True
    assert await course.phone.dial(course.lane.asterisk.bot_extension) == 200
    await course.until(course.phone.ended.is_set, 45)
    course.note.ending = "given up" if course.phone.ended.is_set() else "went on"
    if not course.phone.ended.is_set():
        course.blame("a dead line stayed open for 45 s")
        course.phone.hang_up()
    elif "no audio came from the caller" not in course.session.process.log():
        course.blame("the log does not say that no audio came")
    await course.hear_witness()
    await course.check_left()


async def early_media(course: Course, case: Case) -> None:
    """The bot calls somebody whose line plays an announcement before the answer: it waits, then greets."""
    status = await course.session.place_call(OUTSIDE)
    if status >= 400:
        course.blame(f"the call was not placed: {status}")
        return
    callee = course.phone
    await callee.take(OUTSIDE, course.utterance)
    if callee.hearing.sounds:
        course.blame("the bot spoke before the answer")
    await course.greeted()
    await course.talk(2)
    if course.note.ending != "went on":
        course.blame("the call did not go on")
    callee.hang_up()
    await course.hear_witness()
    await course.check_left()


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
    await course.hear_witness()
    await course.check_left()
