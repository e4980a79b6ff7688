"""The life of one call as a table: (state, fact) to (state, commands). Core; `call.py` executes the commands.

Each command is answered by exactly one `StepDone` or `StepFailed`, only `Finished` by none. Facts may come in
any order that the network can produce. Whatever ends a call, at any stage, leads to ENDING, where all that
exists or may exist is taken down; an object whose creation is under way is deleted once that is answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from ari_app.ari.facts import (
    Answer,
    CalleeAnswered,
    CallerArrived,
    Command,
    CreateBridge,
    CreateMedia,
    DeleteBridge,
    DialEnded,
    DialWanted,
    Fact,
    FarGone,
    FarHungUp,
    FarLeft,
    Finished,
    HandBack,
    HandBackWanted,
    HangUpFar,
    HangUpMedia,
    HangupWanted,
    Join,
    MediaEntered,
    MediaGone,
    MediaUnbridged,
    Originate,
    Ringing,
    RingTimedOut,
    SetupTimedOut,
    StartConversation,
    Step,
    StepDone,
    StepFailed,
    StopConversation,
)
from ari_app.ari.outcome import Ending, Outcome, unanswered
from ari_app.errors import AriConflict, AriError, AriFull, AriNotFound


class State(Enum):
    """Where a call stands."""

    NEW = auto()
    DIALING = auto()
    """Outbound: asked for, nothing rings yet."""
    RINGING = auto()
    """Outbound: rings, or plays early media."""
    ANSWERED = auto()
    """Outbound: the callee is on the line; bridge and media are being made."""
    ARRIVED = auto()
    """Inbound: bridge and media are being made, which takes milliseconds."""
    ANSWERING = auto()
    JOINING = auto()
    TALKING = auto()
    ENDING = auto()
    ENDED = auto()


# --- the table ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """What follows: the next state and commands. Those of ENDING depend on what exists: see `CallFlow`."""

    state: State
    commands: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """Internal: bridge and media are there."""


_S = State
_PREPARE = (CreateBridge(), CreateMedia())

_OUTBOUND_WAITING = (_S.DIALING, _S.RINGING)
_PREPARING = (_S.ARRIVED, _S.ANSWERED)
_WITH_MEDIA = (*_PREPARING, _S.ANSWERING, _S.JOINING, _S.TALKING)
_LIVE = (*_OUTBOUND_WAITING, *_WITH_MEDIA)
_STEPS: tuple[type[Step], ...] = (
    *(Originate, CreateBridge, CreateMedia, Answer, Join, StartConversation),
    *(StopConversation, HangUpFar, HandBack, HangUpMedia, DeleteBridge),
)
_NEWS = (
    *(
        Ringing,
        DialEnded,
        CalleeAnswered,
        MediaEntered,
        FarHungUp,
        FarLeft,
        FarGone,
        MediaGone,
        MediaUnbridged,
    ),
    *(RingTimedOut, SetupTimedOut, HangupWanted, HandBackWanted),
)

Key = tuple[State, type[Fact] | type[Step] | type[Prepared]]
"""State and kind of fact; for `StepDone`, the kind of the command that is done."""

TABLE: Mapping[Key, Row] = {
    (_S.NEW, CallerArrived): Row(_S.ARRIVED, _PREPARE),
    (_S.NEW, DialWanted): Row(_S.DIALING, (Originate(),)),
    # Outbound, not answered yet. The websocket may be ahead of the reply to the originate.
    **{(state, Originate): Row(state) for state in _LIVE},
    **{(state, Ringing): Row(_S.RINGING) for state in _OUTBOUND_WAITING},
    **{(state, DialEnded): Row(state) for state in _OUTBOUND_WAITING},
    # Why the far end hung up is said by the channel's end, which follows at once.
    **{(state, FarHungUp): Row(state) for state in _OUTBOUND_WAITING},
    **{(state, CalleeAnswered): Row(_S.ANSWERED, _PREPARE) for state in _OUTBOUND_WAITING},
    **{(state, RingTimedOut): Row(_S.ENDING) for state in _OUTBOUND_WAITING},
    # Bridge and media, in either order.
    **{
        (state, step): Row(state)
        for state in _PREPARING
        for step in (CreateBridge, CreateMedia, MediaEntered)
    },
    (_S.ARRIVED, Prepared): Row(_S.ANSWERING, (Answer(),)),
    (_S.ANSWERED, Prepared): Row(_S.JOINING, (Join(),)),
    (_S.ANSWERING, Answer): Row(_S.JOINING, (Join(),)),
    (_S.JOINING, Join): Row(_S.TALKING, (StartConversation(),)),
    (_S.TALKING, StartConversation): Row(_S.TALKING),
    # Whatever ends a call.
    **{(state, fact): Row(_S.ENDING) for state in _LIVE for fact in (StepFailed, FarGone, HangupWanted)},
    **{(state, HandBackWanted): Row(_S.ENDING) for state in _LIVE},
    **{
        (state, fact): Row(_S.ENDING)
        for state in _WITH_MEDIA
        for fact in (FarHungUp, FarLeft, MediaGone, MediaUnbridged)
    },
    **{
        (state, SetupTimedOut): Row(_S.ENDING)
        for state in (_S.ARRIVED, _S.ANSWERED, _S.ANSWERING, _S.JOINING)
    },
    (_S.NEW, HangupWanted): Row(_S.ENDING),
    # Being taken down: everything is noted, and what turns up late is taken down too.
    **{(_S.ENDING, fact): Row(_S.ENDING) for fact in (*_NEWS, *_STEPS, StepFailed)},
}

IGNORED: frozenset[Key] = frozenset(
    {
        # A timer and the answer cross; a reconnect reports once more what stands.
        *(
            (state, fact)
            for state in _WITH_MEDIA
            for fact in (Ringing, DialEnded, RingTimedOut, CalleeAnswered)
        ),
        *((state, fact) for state in (*_LIVE, _S.ENDING, _S.ENDED) for fact in (CallerArrived,)),
        *((state, MediaEntered) for state in (_S.ANSWERING, _S.JOINING, _S.TALKING)),
        (_S.TALKING, SetupTimedOut),
        *((state, SetupTimedOut) for state in _OUTBOUND_WAITING),
        *((state, FarLeft) for state in _OUTBOUND_WAITING),
        # The websocket is behind.
        *((_S.ENDED, fact) for fact in _NEWS),
    }
)


# --- the flow ----------------------------------------------------------------------------------------


class _Thing(Enum):
    """What we know of something that the call must leave behind as it found it: gone."""

    ABSENT = auto()
    CREATING = auto()
    PRESENT = auto()
    REMOVING = auto()
    GONE = auto()


_MAKES: Mapping[type[Step], str] = {
    Originate: "far",
    CreateBridge: "bridge",
    CreateMedia: "media",
    StartConversation: "conversation",
}
_REMOVES: Mapping[type[Step], str] = {
    HangUpFar: "far",
    HandBack: "far",
    HangUpMedia: "media",
    DeleteBridge: "bridge",
    StopConversation: "conversation",
}
_TAKEN_AWAY: Mapping[type[Fact], str] = {
    FarLeft: "far",
    FarGone: "far",
    MediaGone: "media",
}


class CallFlow:
    """One call: `push` facts, carry out the returned commands; read `state` and `ending` at any time."""

    def __init__(self) -> None:
        self.state = State.NEW
        self.ending: Ending | None = None
        self._things = dict.fromkeys(("far", "media", "bridge", "conversation"), _Thing.ABSENT)
        self._outstanding: set[Step] = set()
        self._outbound = False
        self._rang = False
        self._connected = False
        """The callee answered, or the caller was in conversation."""
        self._media_entered = False
        self._far_hung_up = False
        self._dialstatus = ""
        self._far_gone: FarGone | None = None
        self._hand_back = ""
        """The result to return an inbound call to the dialplan with; empty: it is hung up."""
        self._hangup_reason = "normal"
        self._refused_step = False
        """The call ends because Asterisk refused a step on an object that is gone or going."""

    def push(self, fact: Fact) -> tuple[Command, ...]:
        """Take note of `fact` and say what to do now, in no particular order: commands may run concurrently.

        Raises:
            ValueError: the fact cannot come in this state; a fault of the caller of this method.
        """
        key: Key = (self.state, type(fact.command) if isinstance(fact, StepDone) else type(fact))
        if isinstance(fact, StepDone | StepFailed) and fact.command not in self._outstanding:
            raise ValueError(f"{type(fact.command).__name__} was not asked for, or is answered twice")
        row = TABLE.get(key)
        if row is None:
            if key in IGNORED:
                return ()
            raise ValueError(f"{key[1].__name__} cannot come in state {self.state.name}")
        self._note(fact)
        commands = self._go(row, fact)
        if self.state in _PREPARING and self._is_prepared():
            commands += self._go(TABLE[self.state, Prepared], fact)
        if self.state is State.ENDING:
            commands += self._take_down()
        return commands

    def _note(self, fact: Fact) -> None:
        match fact:
            case CallerArrived():
                self._things["far"] = _Thing.PRESENT
            case DialWanted():
                self._outbound = True
            case Ringing():
                self._rang = True
            case DialEnded():
                self._dialstatus = fact.dialstatus
            case CalleeAnswered():
                self._connected = True
            case MediaEntered():
                self._media_entered = True
            case FarHungUp():
                self._far_hung_up = True
            case HandBackWanted() if self.state is not State.ENDING and not self._outbound:
                self._hand_back = fact.result
            case StepDone() | StepFailed():
                self._note_answer(fact)
            case FarLeft() | FarGone() | MediaGone():
                self._things[_TAKEN_AWAY[type(fact)]] = _Thing.GONE
                if isinstance(fact, FarGone):
                    self._far_gone = fact

    def _note_answer(self, fact: StepDone | StepFailed) -> None:
        command, failed = fact.command, isinstance(fact, StepFailed)
        self._outstanding.discard(command)
        made, removed = _MAKES.get(type(command)), _REMOVES.get(type(command))
        if made and self._things[made] is _Thing.CREATING:
            self._things[made] = _Thing.PRESENT  # after a failure it may be: an answer can get lost
        if removed and self._things[removed] is _Thing.REMOVING:
            self._things[removed] = _Thing.GONE  # after a failure the next sweep has another try
            if failed and isinstance(command, HandBack):
                self._things["far"] = _Thing.PRESENT
                self._hand_back = ""

    def _go(self, row: Row, fact: Fact) -> tuple[Command, ...]:
        ends = row.state is State.ENDING and self.state is not State.ENDING
        if ends:
            self.ending = self._ending_of(fact)
            self._refused_step = isinstance(fact, StepFailed) and (
                isinstance(fact.error, AriNotFound | AriConflict)
                # Asterisk's word for "it is being hung up" is 500 here.
                or (isinstance(fact.command, Answer) and isinstance(fact.error, AriError))
            )
            if (
                isinstance(fact, StepFailed | MediaGone | MediaUnbridged | SetupTimedOut)
                and not self._outbound
            ):
                full = isinstance(fact, StepFailed) and isinstance(fact.error, AriFull)
                self._hand_back = "busy" if full else "failed"
            if self.state in {State.ARRIVED, State.ANSWERING}:
                self._hangup_reason = "congestion"  # SIP 503: nobody declined the caller
        self._connected = self._connected or row.state is State.TALKING
        self.state = row.state
        return tuple(self._issue(command) for command in row.commands)

    def _issue(self, command: Step) -> Step:
        self._outstanding.add(command)
        if made := _MAKES.get(type(command)):
            self._things[made] = _Thing.CREATING
        if removed := _REMOVES.get(type(command)):
            self._things[removed] = _Thing.REMOVING
        return command

    def _is_prepared(self) -> bool:
        there = self._things["bridge"] is self._things["media"] is _Thing.PRESENT
        return there and self._media_entered

    def _take_down(self) -> tuple[Command, ...]:
        far: Step = HandBack(self._hand_back) if self._hand_back else HangUpFar(self._hangup_reason)
        removers: Mapping[str, Step] = {
            "far": far,
            "conversation": StopConversation(),
            "media": HangUpMedia(),
            "bridge": DeleteBridge(),
        }
        commands: list[Command] = []
        for thing, remover in removers.items():
            state = self._things[thing]
            if state is _Thing.PRESENT or (state is _Thing.CREATING and thing == "conversation"):
                commands.append(self._issue(remover))
        if not self._outstanding and self.ending is not None:
            self.state = State.ENDED
            self.ending = self._final_ending(self.ending)
            commands.append(Finished(self.ending))
        return tuple(commands)

    # --- how it ended

    def _ending_of(self, fact: Fact) -> Ending:
        spoke = Outcome.ANSWERED if self._connected else Outcome.CANCELLED
        match fact:
            case FarHungUp() | FarLeft():
                return Ending(spoke, "far", "hung up")
            case FarGone():
                return self._ending_of_gone(fact)
            case HangupWanted():
                return Ending(spoke, "us", fact.why)
            case HandBackWanted():
                wanted = fact.result in ("completed", "handover", "transfer")
                good = self._connected and wanted and not fact.failed
                return Ending(Outcome.ANSWERED if good else Outcome.FAILED, "us", fact.why)
            case RingTimedOut() if self._rang:
                return Ending(Outcome.NO_ANSWER, "us", "it rang until the ring timeout")
            case RingTimedOut():
                return Ending(Outcome.UNREACHABLE, "us", "nothing rang before the ring timeout")
            case StepFailed(Originate(), AriNotFound() as error):
                return Ending(Outcome.UNREACHABLE, "asterisk", str(error))
            case StepFailed():
                by: Literal["us", "asterisk"] = "asterisk" if isinstance(fact.error, AriError) else "us"
                return Ending(Outcome.FAILED, by, str(fact.error))
            case MediaGone():
                return Ending(Outcome.FAILED, "asterisk", "the media channel vanished")
            case MediaUnbridged():
                return Ending(Outcome.FAILED, "asterisk", "the media channel was taken out of the bridge")
            case _:
                return Ending(Outcome.FAILED, "asterisk", "the set-up took too long")

    def _ending_of_gone(self, gone: FarGone) -> Ending:
        if gone.cause is None and gone.tech_cause is None:
            outcome = Outcome.ANSWERED if self._connected else Outcome.FAILED
            return Ending(outcome, "asterisk", "it ended while the connection to Asterisk was lost")
        if self._outbound and not self._connected:
            return unanswered(
                cause=gone.cause,
                cause_txt=gone.cause_txt,
                tech_cause=gone.tech_cause,
                dialstatus=self._dialstatus,
                rang=self._rang,
            )
        outcome = Outcome.ANSWERED if self._connected else Outcome.CANCELLED
        return Ending(outcome, "far", f"hung up, cause {gone.cause} ({gone.cause_txt})")

    def _final_ending(self, ending: Ending) -> Ending:
        """With what was learnt since: the cause, or that a step failed because the far end hung up."""
        if self._refused_step and self._far_hung_up:
            ending = self._ending_of(FarHungUp())
        if ending.by == "far" and ending.detail == "hung up" and self._far_gone is not None:
            return self._ending_of(self._far_gone)
        return ending
