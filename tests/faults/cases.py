"""The table of faults: who fails, how, and at which moment; and how one case is run. Shell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

from tests.faults import machine, network, signalling
from tests.faults.course import MOMENTS, Case, Course, Note, Procedure
from tests.faults.engine import FAULTS, STAGES, STATUSES
from tests.faults.lane import Lane
from tests.faults.surroundings import CLOCK_STEPS, nothing_special, own_clock, small_disk, stand_in, way_out

MODES = ("pipeline", "realtime")
LONGEST_S = 240.0
"""A cell that takes longer has failed; the slowest took 110 s."""


@asynccontextmanager
async def on_course(lane: Lane, case: Case, utterance: bytes, more: dict[str, str]) -> AsyncIterator[Course]:
    """Application, witness and caller; afterwards nothing of them may be left."""
    note = Note(case.group, case.fault, case.moment, case.mode)
    called = case.group == "called" or case.fault == "early media"
    async with (
        lane.session(case.mode, more) as session,
        lane.phone() as witness,
        lane.phone(outside=called) as phone,
    ):
        course = Course(lane, session, note, utterance)
        course.phone = phone
        await course.place_witness(witness)
        watching = asyncio.create_task(course.watch_itself())
        try:
            yield course
        finally:
            watching.cancel()


def _stages(case: Case) -> tuple[str, ...]:
    """Which stage fails: each meets each fault at two moments."""
    if case.mode == "realtime":
        return ("realtime",)
    if case.fault == "refused":
        return ("stt", "chat", "tts")
    return (("stt", "chat", "tts")[MOMENTS.index(case.moment) % 3],)


BROKEN_OFF = ("hangs after the first byte", "slow drip")
"""Something comes of each answer: how long a caller speaks into that is theirs to say."""
HARMLESS = {"realtime": ("garbage", "10 MB", *BROKEN_OFF), "pipeline": ()}
"""A Realtime session goes on beside what is no event, and its answer after a new one."""
HURTS_ALL = ("refused", *STATUSES, "hangs before the first byte")
"""In Realtime the session of who says nothing breaks, too."""


def _expected(case: Case) -> tuple[str, ...]:
    """How the call may end: three turns in a row that fail, or one that can't pass by itself, are enough."""
    if case.moment == "hanging up":
        return ("hung up",)
    if case.fault in HARMLESS[case.mode]:
        return ("went on",)
    endless_speech = case.fault == "10 MB" and _stages(case) == ("tts",)
    if case.mode == "pipeline" and (case.fault in BROKEN_OFF or endless_speech):
        return ("went on", "given up")
    return ("given up",)


async def engine(course: Course, case: Case) -> None:
    """An engine fails at a moment and for good; the caller is told, and what the policy says happens."""
    faulty = course.lane.engine
    strike = partial(faulty.arm, case.fault, *_stages(case))
    if await course.strike_at(case.moment, strike, patient=True):
        await course.talk(patient=case.moment in ("ringing", "greeting"))
    if not course.phone.ended.is_set():
        course.phone.hang_up()
    course.note.ending = course.note.ending or "given up"
    if course.note.ending not in _expected(case):
        course.blame(f"the call should have {' or '.join(_expected(case))}")
    calm = case.mode == "pipeline" or case.fault not in HURTS_ALL
    await course.hear_witness(undisturbed=calm)
    await course.check_left()


async def away_and_back(course: Course, case: Case) -> None:
    """All engines fail in a turn and work again some seconds later: the call is none of those that are given up."""
    faulty = course.lane.engine
    if await course.strike_at("thinking", partial(faulty.arm, "503", *STAGES)):
        await faulty.heal()
        await asyncio.sleep(TRIED_AGAIN_S)
        healed_at = asyncio.get_running_loop().time()
        await course.talk(3)
        if "answer" not in course.heard(since=healed_at):
            course.blame("nobody answered although the engines worked again")
    await course.went_on(undisturbed=case.mode == "pipeline")


async def stood_in_for(course: Course, case: Case) -> None:
    """All engines fail for good, and each has one that stands in: the caller hears answers, and no word of it."""
    if await course.strike_at("thinking", partial(course.lane.engine.arm, "500", *STAGES)):
        await course.talk(3)
    await course.went_on(undisturbed=case.mode == "pipeline")
    if case.mode == "pipeline" and set(course.note.heard) != {"greeting", "answer"}:
        course.blame(f"the caller heard {', '.join(course.note.heard)}")


TRIED_AGAIN_S = 4.0
"""An engine out of service is tried again after three seconds."""
THROUGHOUT = ("throughout",)
MACHINE: dict[str, Procedure] = {
    "ARI connection cut": machine.ari_cut,
    "ARI connection half-open": machine.ari_half_open,
    "application paused for 3 s": machine.paused,
    "descriptors used up": machine.no_descriptors,
    "kill -9 of the application": machine.application_killed,
    "kill -9 of Asterisk": machine.asterisk_killed,
    "core restart now": machine.asterisk_restarted,
    "disk full": machine.disk_full,
    **dict.fromkeys(CLOCK_STEPS, machine.clock_steps),
}
SIP: dict[str, Procedure] = {
    "hung up within 10 ms": signalling.hung_up_at_once,
    "CANCEL race": signalling.cancelled,
    "hold and resume": signalling.held,
    "early media": signalling.early_media,
    "no RTP at all": signalling.no_rtp,
}
CALLED: dict[str, Procedure] = {
    "ARI connection cut": signalling.cut_while_it_rings,
    "kill -9 of the application": signalling.killed_while_it_rings,
    "engine refused": signalling.refused_while_it_rings,
}
REFER_AT = ("greeting", "listening", "thinking", "speaking")


def table() -> list[tuple[Case, Procedure]]:
    """Every cell."""
    cells: list[tuple[Case, Procedure]] = []
    for mode in MODES:
        cells += [(Case("engine", fault, at, mode), engine) for fault in FAULTS for at in MOMENTS]
        cells += [(Case("engine", "away and back", at, mode), away_and_back) for at in THROUGHOUT]
        cells += [
            (Case("engine", "with another that stands in", at, mode), stood_in_for) for at in THROUGHOUT
        ]
        cells += [(Case("called", fault, "ringing", mode), go) for fault, go in CALLED.items()]
        cells += [(Case("SIP", "REFER", at, mode), signalling.referred) for at in REFER_AT]
        cells += [(Case("machine", fault, at, mode), go) for fault, go in MACHINE.items() for at in MOMENTS]
        cells += [
            (Case("RTP", fault, at, mode), network.bad_line) for fault in network.LINES for at in THROUGHOUT
        ]
        cells += [(Case("RTP", "wrong source", at, mode), network.wrong_source) for at in THROUGHOUT]
        cells += [(Case("RTP", "flood of foreign packets", at, mode), network.flood) for at in THROUGHOUT]
        cells += [(Case("SIP", fault, at, mode), go) for fault, go in SIP.items() for at in THROUGHOUT]
    return cells


SURROUNDINGS = {
    "disk full": small_disk,
    **dict.fromkeys(CLOCK_STEPS, own_clock),
    "early media": way_out,
    "with another that stands in": stand_in,
}


async def run(
    lane: Lane, case: Case, procedure: Procedure, utterance: bytes, also: Mapping[str, str] | None = None
) -> Note:
    """One cell; `also` are settings beyond those that its surroundings need."""
    began = asyncio.get_running_loop().time()
    around = way_out if case.group == "called" else SURROUNDINGS.get(case.fault, nothing_special)
    async with (
        asyncio.timeout(LONGEST_S),
        around(lane) as more,
        on_course(lane, case, utterance, {**more, **(also or {})}) as course,
    ):
        if course.witness is not None:
            await procedure(course, case)
        note = course.note
    note.took_s = round(asyncio.get_running_loop().time() - began, 1)
    return note
