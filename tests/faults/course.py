"""The course of one case: a caller who talks to the bot, a fault at a moment, and what is noted of it. Shell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.stats import summarize
from tests.faults.lane import WINDOW_S, Lane, Left, Session
from tests.faults.phone import Phone

MOMENTS = ("ringing", "greeting", "listening", "thinking", "speaking", "hanging up")
DEAD_AIR_S = 3.0
"""Beyond the silence window nobody waits longer for a sound."""
PATIENCE_S = 1.0
TURNS = 5
QUIET_S = 0.8
SWEPT = "of dead calls"
"""The log, when something was taken down only because its call was no more."""
LONGEST_ANSWER_S = 15.0
SETTLE_S = 0.3

Strike = Callable[[], Awaitable[None]]


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


@dataclass
class Note:
    """What came of a case."""

    group: str
    fault: str
    moment: str
    mode: str
    problems: list[str] = field(default_factory=list)
    waits_ms: list[float] = field(default_factory=list)
    """From the end of each thing the caller said to the next sound, beyond the silence window."""
    ending: str = ""
    """`went on`: the caller hung up at last; `given up`: the bot did."""
    witness_gap_ms: float = 0.0
    """The longest between two packets that another caller of the same application got meanwhile."""
    witness_gap_p99_ms: float = 0.0
    witness_lost: int = 0
    took_s: float = 0.0
    remarks: list[str] = field(default_factory=list)
    log: str = ""
    """Of the application, where something was wrong."""

    @property
    def ok(self) -> bool:
        return not self.problems


class Course:
    """A caller, a witness, and the helpers of all cases."""

    def __init__(self, lane: Lane, session: Session, note: Note, utterance: bytes) -> None:
        self.lane = lane
        self.session = session
        self.note = note
        self.utterance = utterance
        self.phone: Phone
        self.witness: Phone | None = None
        self.before: Left
        self._loop = asyncio.get_running_loop()
        self._witnessed_from = 0.0

    def blame(self, problem: str) -> None:
        self.note.problems.append(problem)

    # --- the witness

    async def place_witness(self, witness: Phone) -> None:
        """A silent caller, in conversation before anything goes wrong."""
        status = await witness.dial(self.lane.asterisk.bot_extension)
        if status != 200:
            self.blame(f"the witness was refused with {status}")
            return
        self.witness = witness
        await self.until(lambda: bool(witness.hearing.sounds), 5)
        await self.until(lambda: witness.hearing.quiet_s(self._loop.time()) > QUIET_S, 10)
        self.before = await self.session.left()
        self._witnessed_from = self._loop.time()

    def hear_witness(self, *, undisturbed: bool = True) -> None:
        """Note how steady its sound was."""
        assert self.witness is not None
        gaps = self.witness.hearing.gaps_ms(self._witnessed_from)
        if summary := summarize(gaps):
            self.note.witness_gap_ms = round(summary.max, 1)
            self.note.witness_gap_p99_ms = round(summary.p99, 1)
        self.note.witness_lost = self.witness.hearing.lost
        if not undisturbed:
            return
        if self.witness.ended.is_set():
            self.blame("the other caller was hung up on")
        if self.witness.hearing.lost:
            self.blame(f"the other caller lost {self.witness.hearing.lost} packets")
        expected = (self._loop.time() - self._witnessed_from) / 0.02
        if len(gaps) < 0.97 * expected - 25:
            self.blame(f"the other caller heard {len(gaps)} packets of {expected:.0f}")

    # --- the caller

    async def until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Wait for it; False when it does not come."""
        deadline = self._loop.time() + within_s
        while not condition():
            if self._loop.time() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    async def quiet(self) -> None:
        """Until the bot has stopped speaking, or the call is over."""
        hearing = self.phone.hearing
        await self.until(
            lambda: self.phone.ended.is_set() or hearing.quiet_s(self._loop.time()) > QUIET_S,
            LONGEST_ANSWER_S,
        )

    async def greeted(self) -> None:
        """The greeting was heard, and is over."""
        if not await self.until(lambda: bool(self.phone.hearing.sounds) or self.phone.ended.is_set(), 4):
            self.blame("nothing was heard within 4 s of the answer")
        await self.quiet()

    async def answered(self, said_at: float) -> bool:
        """Wait for a sound after what the caller said; False, and a problem, when the air is dead."""
        longest_s = WINDOW_S + DEAD_AIR_S + 2.0
        hearing, ended = self.phone.hearing, self.phone.ended
        await self.until(lambda: hearing.first_sound_after(said_at) is not None or ended.is_set(), longest_s)
        sound_at = hearing.first_sound_after(said_at)
        if sound_at is None:
            if not ended.is_set():
                self.blame(f"dead air: nothing was heard for {longest_s:.1f} s")
            return False
        wait_s = sound_at - said_at - WINDOW_S
        self.note.waits_ms.append(round(wait_s * 1000))
        if wait_s > DEAD_AIR_S:
            self.blame(f"dead air for {wait_s:.1f} s")
        return True

    async def patient(self, said_at: float) -> None:
        """Say nothing until the answer is over, with a problem when in its middle the air is dead for long."""
        hearing, ended = self.phone.hearing, self.phone.ended
        patience_s = DEAD_AIR_S + PATIENCE_S
        await self.until(
            lambda: ended.is_set() or hearing.quiet_s(self._loop.time()) > patience_s, 4 * patience_s
        )
        sounds = [at for at in hearing.sounds if at > said_at]
        longest_s = max((b - a for a, b in zip(sounds, sounds[1:], strict=False)), default=0.0)
        self.note.remarks.append(f"longest silence in the answer {longest_s:.1f} s")
        if longest_s > DEAD_AIR_S:
            self.blame(f"dead air for {longest_s:.1f} s in the middle of an answer")
        quiet = hearing.quiet_s(self._loop.time()) > patience_s
        if quiet and not ended.is_set() and self.session.owes():
            self.blame(f"the answer never came, and nothing was said for {patience_s:g} s")

    async def turn(self, *, patient: bool = False) -> bool:
        """Say something and hear what comes; False when there is nobody any more."""
        said_at = await self.phone.say(self.utterance)
        heard = await self.answered(said_at)
        await (self.patient(said_at) if patient else self.quiet())
        return heard and not self.phone.ended.is_set()

    async def talk(self, turns: int = TURNS, *, patient: bool = False) -> None:
        """Go on talking, at most so many turns, and note how that ended; `patient` in the first."""
        for number in range(turns):
            if self.phone.ended.is_set() or not await self.turn(patient=patient and number == 0):
                break
        self.note.ending = "given up" if self.phone.ended.is_set() else "went on"

    async def strike_at(self, moment: str, strike: Strike, *, patient: bool = False) -> bool:
        """Call, and do `strike` at the moment; False when the call is over then. `patient`: the caller hears out what
        comes of it."""
        phone = self.phone
        if moment == "ringing":
            await strike()
        status = await phone.dial(self.lane.asterisk.bot_extension)
        if status != 200:
            self.blame(f"the call was refused with {status}")
            return False
        if moment == "greeting":
            await self.until(lambda: bool(phone.hearing.sounds), 4)
            await asyncio.sleep(SETTLE_S)
            await strike()
        await self.greeted()
        if moment in ("ringing", "greeting"):
            return not phone.ended.is_set()
        saying = asyncio.create_task(phone.say(self.utterance))
        if moment == "listening":
            await asyncio.sleep(SETTLE_S)
            await strike()
        said_at = await saying
        if moment == "thinking":
            await asyncio.sleep(SETTLE_S)
            await strike()
        await self.answered(said_at)
        if moment in ("speaking", "hanging up"):
            await asyncio.sleep(SETTLE_S)
            await strike()
        if moment == "hanging up":
            phone.hang_up()
            self.note.ending = "hung up"
            return False
        await (self.patient(said_at) if patient else self.quiet())
        return not phone.ended.is_set()

    async def check_left(self, before: Left) -> None:
        """Nothing of the call is left."""
        more = await self.session.leftovers(before)
        if more:
            self.blame(f"left behind: {more}")
        if self.note.group != "machine" and SWEPT in self.session.process.log():
            self.blame("what the call should have taken down was left to the sweep")
        for line in self.session.faults_in_log()[:3]:
            self.blame(f"in the log: {line[:160]}")
        if not self.note.ok:
            self.note.log = self.session.process.log()[-20_000:]


Procedure = Callable[[Course, Case], Awaitable[None]]
"""What happens in a case."""
