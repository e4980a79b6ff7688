"""Faults of signalling, by callers and the called. Shell."""

from __future__ import annotations

import asyncio

from ari_app.line import UNHEARD
from tests.faults.course import SETTLE_S, Case, Course
from tests.faults.surroundings import OUTSIDE

CANCELLED_WITHIN_S = 8.0
LOGGED_WITHIN_S = 3.0


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
    elif not await course.until(lambda: UNHEARD in course.session.process.log(), LOGGED_WITHIN_S):
        course.blame("the log does not say that no audio came")
    await course.hear_witness()
    await course.check_left()


async def _called(course: Course) -> bool:
    """The bot calls somebody outside, whose phone rings."""
    status = await course.session.place_call(OUTSIDE)
    if status >= 400:
        course.blame(f"the call was not placed: {status}")
        return False
    await course.phone.ring(OUTSIDE)
    return True


async def early_media(course: Course, case: Case) -> None:
    """The bot calls somebody whose line plays an announcement before the answer: it waits, then greets."""
    if await _called(course):
        await course.phone.pick_up(course.utterance)
        if course.phone.hearing.sounds:
            course.blame("the bot spoke before the answer")
        await _goes_well(course)


async def _goes_well(course: Course) -> None:
    await course.greeted()
    await course.talk(2)
    await course.went_on()


async def cut_while_it_rings(course: Course, case: Case) -> None:
    """The connection to ARI is reset while a phone rings that the bot calls: nobody notices."""
    if await _called(course):
        await asyncio.sleep(SETTLE_S)  # else the very request is cut off, and taken back
        course.lane.ari.cut()
        await asyncio.sleep(1)
        await course.phone.pick_up()
        await _goes_well(course)


async def killed_while_it_rings(course: Course, case: Case) -> None:
    """kill -9 of the application while a phone rings: started again, it takes the call back."""
    if not await _called(course):
        return
    await course.session.process.kill()
    await course.session.start()
    if not await course.phone.cancelled(CANCELLED_WITHIN_S):
        course.blame(f"the phone rang for {CANCELLED_WITHIN_S:g} s after the application was back")
    course.note.ending = "ended"
    await course.check_left()


async def refused_while_it_rings(course: Course, case: Case) -> None:
    """The engines refuse before the called answers: they are told, and hung up on."""
    if not await _called(course):
        return
    await course.lane.engine.arm("refused", "stt", "chat", "tts", "realtime")
    await asyncio.sleep(1)
    await course.phone.pick_up()
    await course.greeted()
    await course.talk()
    if course.note.ending != "given up":
        course.blame("the call went on without an engine")
        course.phone.hang_up()
    await course.hear_witness(undisturbed=case.mode == "pipeline")
    await course.check_left()


async def referred(course: Course, case: Case) -> None:
    """REFER: nobody moves the call elsewhere, and it goes on."""

    async def refer() -> None:
        course.phone.refer("123")

    if await course.strike_at(case.moment, refer):
        await course.talk(2)
    if not course.phone.replies or course.phone.replies[0] < 400:
        course.blame(f"the REFER was answered with {course.phone.replies}")
    await course.went_on()
