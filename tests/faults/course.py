"""The course of one case: a caller who talks to the bot, a fault at a moment, and what is noted of it. Shell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.stats import summarize
from tests.faults.lane import HEARD_HZ, WINDOW_S, Lane, Left, Session
from tests.faults.phone import Phone

SENTENCE = "What time do you open?"
MOMENTS = ("ringing", "greeting", "listening", "thinking", "speaking", "hanging up")
DEAD_AIR_S = 3.0
"""Beyond the silence window nobody waits longer for a sound."""
PATIENCE_S = 1.0
TURNS = 5
QUIET_S = 0.8
SWEPT = "of dead calls"
"""The log, when something was taken down only because its call was no more."""
SWEEPING = (
    *("kill -9 of the application", "kill -9 of Asterisk", "core restart now"),
    *("ARI connection cut", "ARI connection half-open", "descriptors used up"),
)
"""After these the sweep may, and must, help; after all others each call cleans up itself."""
WITNESS_GAP_MS = 250.0
"""No other caller waits longer for a packet, on two cores with four cells at a time."""
WITNESSED_S = 2.0
"""So long at least after a fault they are listened to."""
TONE_HZ = 50
"""A tone is that of a sentence when it is so near."""
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
    heard: list[str] = field(default_factory=list)
    """Which sentences the caller heard, by their sound, in order."""
    heard_first: str = ""
    """The first that began after the fault, where the caller had reason to notice one."""
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
        self.idle: Left
        """What exists when nobody calls."""
        self.struck_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._witnessed_from = 0.0
        self._own_lag_ms = 0.0

    async def watch_itself(self) -> None:
        """For ever: how late the test itself is at most, which its callers can't tell from what they did not hear."""
        while True:
            due = self._loop.time() + 0.02
            await asyncio.sleep(0.02)
            self._own_lag_ms = max(self._own_lag_ms, (self._loop.time() - due) * 1000)

    def blame(self, problem: str) -> None:
        self.note.problems.append(problem)

    # --- the witness

    async def place_witness(self, witness: Phone) -> None:
        """A silent caller, in conversation before anything goes wrong."""
        self.idle = await self.session.idle()
        status = await witness.dial(self.lane.asterisk.bot_extension)
        if status != 200:
            self.blame(f"the witness was refused with {status}")
            return
        self.witness = witness
        await self.until(lambda: bool(witness.hearing.sounds), 5)
        await self.until(lambda: witness.hearing.quiet_s(self._loop.time()) > QUIET_S, 10)
        self._witnessed_from = self._loop.time()

    async def hear_witness(self, *, undisturbed: bool = True, paused_ms: float = 0.0) -> None:
        """Note how steady its sound was, and that it was nobody else's; `undisturbed`: also that it went on."""
        assert self.witness is not None
        longest_ms = paused_ms + WITNESS_GAP_MS
        await asyncio.sleep(max(self.struck_at + WITNESSED_S - self._loop.time(), 0))
        gaps = self.witness.hearing.gaps_ms(self._witnessed_from)
        if summary := summarize(gaps):
            self.note.witness_gap_ms = round(summary.max, 1)
            self.note.witness_gap_p99_ms = round(summary.p99, 1)
            if summary.max > longest_ms + self._own_lag_ms:
                self.blame(f"the other caller heard nothing for {summary.max:.0f} ms")
        self.note.witness_lost = self.witness.hearing.lost
        if not undisturbed:
            return
        if heard := self.heard(self.witness, self._witnessed_from):
            self.blame(f"the other caller, who said nothing, heard {', '.join(heard)}")
        if self.witness.ended.is_set():
            self.blame("the other caller was hung up on")
        if self.witness.hearing.lost:
            self.blame(f"the other caller lost {self.witness.hearing.lost} packets")
        expected = (self._loop.time() - self._witnessed_from - longest_ms / 1000) / 0.02
        if len(gaps) < 0.98 * expected - 5:
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
        """The greeting, or why there is none, was heard, and is over."""
        hearing = self.phone.hearing
        await self.until(lambda: bool(hearing.sounds) or self.phone.ended.is_set(), DEAD_AIR_S)
        if not hearing.sounds:
            self.blame(f"nothing was heard within {DEAD_AIR_S:g} s of the answer, or until the end")
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
            elif "regret" not in self.heard():
                self.blame("hung up on without a word")
            return False
        wait_s = sound_at - said_at - WINDOW_S
        self.note.waits_ms.append(round(wait_s * 1000))
        if wait_s > DEAD_AIR_S:
            self.blame(f"dead air for {wait_s:.1f} s")
        return True

    def heard(self, phone: Phone | None = None, since: float = 0.0) -> list[str]:
        """Which sentences the caller, or who has `phone`, heard since, each as often as something else came between."""
        names: list[str] = []
        hearing = (phone or self.phone).hearing
        for at, hz in zip(hearing.sounds, hearing.tones_hz, strict=True):
            near = [name for known, name in HEARD_HZ.items() if abs(hz - known) < TONE_HZ]
            if at > since and near and near != names[-1:]:
                names += near
        return names

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

        async def strike_now() -> None:
            self.struck_at = self._loop.time()
            await strike()

        if moment == "ringing":
            await strike_now()
        status = await phone.dial(self.lane.asterisk.bot_extension)
        if status != 200:
            self.blame(f"the call was refused with {status}")
            return False
        if moment == "greeting":
            await self.until(lambda: bool(phone.hearing.sounds), 4)
            await asyncio.sleep(SETTLE_S)
            await strike_now()
        await self.greeted()
        if moment in ("ringing", "greeting"):
            return not phone.ended.is_set()
        saying = asyncio.create_task(phone.say(self.utterance))
        if moment == "listening":
            await asyncio.sleep(SETTLE_S)
            await strike_now()
        said_at = await saying
        if moment == "thinking":
            await asyncio.sleep(SETTLE_S)
            await strike_now()
        await self.answered(said_at)
        if moment in ("speaking", "hanging up"):
            await asyncio.sleep(SETTLE_S)
            await strike_now()
        if moment == "hanging up":
            phone.hang_up()
            self.note.ending = "hung up"
            return False
        await (self.patient(said_at) if patient else self.quiet())
        return not phone.ended.is_set()

    async def went_on(self, *, undisturbed: bool = True) -> None:
        """The call is still there, and the caller ends it."""
        if self.note.ending != "went on":
            self.blame("the call did not go on")
        self.phone.hang_up()
        await self.hear_witness(undisturbed=undisturbed)
        await self.check_left()

    async def check_left(self) -> None:
        """The call went as it could, and when the other caller has gone too nothing of any is left."""
        self.note.heard = self.heard()
        if self.note.group in ("engine", "called") and (after := self.heard(since=self.struck_at + SETTLE_S)):
            self.note.heard_first = after[0]
        if self.note.ending == "given up" and "regret" not in self.note.heard and not self.phone.mute:
            self.blame("given up without a word")
        if self.witness is not None and not self.witness.ended.is_set():
            self.witness.hang_up()
        if more := await self.session.leftovers(self.idle):
            self.blame(f"left behind: {more}")
        if self.note.fault not in SWEEPING and SWEPT in self.session.process.log():
            self.blame("what the call should have taken down was left to the sweep")
        for line in self.session.faults_in_log()[:3]:
            self.blame(f"in the log: {line[:160]}")
        if not self.note.ok:
            self.note.log = self.session.process.log()[-20_000:]


Procedure = Callable[[Course, Case], Awaitable[None]]
"""What happens in a case."""
