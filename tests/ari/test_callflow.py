"""The call flow: every pair of state and fact, whole calls, and random orders that may leave nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.ari.callflow import IGNORED, TABLE, CallFlow, Key, Prepared, State
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
from ari_app.ari.outcome import Ending, Outcome
from ari_app.errors import AriConflict, AriError, AriFull, AriNotFound

S = State
BROKEN = AriError("try", 500, "broken")

INBOUND: list[tuple[Fact, State]] = [
    (CallerArrived(), S.ARRIVED),
    (StepDone(CreateBridge()), S.ARRIVED),
    (StepDone(CreateMedia()), S.ARRIVED),
    (MediaEntered(), S.ANSWERING),
    (StepDone(Answer()), S.JOINING),
    (StepDone(Join()), S.TALKING),
    (StepDone(StartConversation()), S.TALKING),
]
OUTBOUND: list[tuple[Fact, State]] = [
    (DialWanted(), S.DIALING),
    (StepDone(Originate()), S.DIALING),
    (Ringing(), S.RINGING),
    (CalleeAnswered(), S.ANSWERED),
    (MediaEntered(), S.ANSWERED),
    (StepDone(CreateMedia()), S.ANSWERED),
    (StepDone(CreateBridge()), S.JOINING),
    (StepDone(Join()), S.TALKING),
    (StepDone(StartConversation()), S.TALKING),
]
ENDERS: list[Fact] = [
    FarHungUp(),
    FarLeft(),
    FarGone(16, "Normal Clearing"),
    FarGone(),
    MediaGone(),
    MediaUnbridged(),
    HangupWanted("Ctrl-C"),
    HandBackWanted("failed", "the engines failed"),
    SetupTimedOut(),
    RingTimedOut(),
]


def walk(flow: CallFlow, path: list[tuple[Fact, State]]) -> list[Command]:
    commands: list[Command] = []
    for fact, state in path:
        commands += flow.push(fact)
        assert flow.state is state, fact
    return commands


def settle(flow: CallFlow, issued: Sequence[Command]) -> list[Command]:
    """Answer all that is unanswered, well, until nothing is; returns all commands."""
    todo, seen = [c for c in issued if not isinstance(c, Finished)], list(issued)
    while todo:
        for command in flow.push(StepDone(todo.pop(0))):
            seen.append(command)
            if not isinstance(command, Finished):
                todo.append(command)
    return seen


def kinds(commands: list[Command] | tuple[Command, ...]) -> set[str]:
    return {type(command).__name__ for command in commands}


def test_inbound_call() -> None:
    flow = CallFlow()
    assert walk(flow, INBOUND) == [CreateBridge(), CreateMedia(), Answer(), Join(), StartConversation()]
    assert set(flow.push(FarHungUp())) == {StopConversation(), HangUpFar(), HangUpMedia(), DeleteBridge()}
    assert flow.push(FarGone(16, "Normal Clearing")) == ()
    assert flow.push(StepDone(HangUpFar())) == ()
    assert flow.push(StepDone(HangUpMedia())) == ()
    assert flow.push(MediaGone()) == ()
    assert flow.push(StepDone(StopConversation())) == ()
    ending = Ending(Outcome.ANSWERED, "far", "hung up, cause 16 (Normal Clearing)")
    assert flow.push(StepDone(DeleteBridge())) == (Finished(ending),)
    assert flow.state is S.ENDED
    assert flow.push(MediaGone()) == ()


def test_outbound_call_that_we_end() -> None:
    flow = CallFlow()
    assert walk(flow, OUTBOUND) == [
        Originate(),
        CreateBridge(),
        CreateMedia(),
        Join(),
        StartConversation(),
    ]
    commands = settle(flow, list(flow.push(HangupWanted("Ctrl-C"))))
    assert commands[-1] == Finished(Ending(Outcome.ANSWERED, "us", "Ctrl-C"))
    assert kinds(commands) == {
        "StopConversation",
        "HangUpFar",
        "HangUpMedia",
        "DeleteBridge",
        "Finished",
    }


@pytest.mark.parametrize(
    ("facts", "outcome", "by"),
    [
        ([Ringing(), DialEnded("BUSY"), FarGone(17, "User busy", 486)], Outcome.BUSY, "far"),
        ([FarGone(17, "User busy", 600)], Outcome.BUSY, "far"),
        ([Ringing(), FarGone(21, "Call Rejected", 603)], Outcome.REJECTED, "far"),
        ([FarGone(1, "Unallocated", 404)], Outcome.UNREACHABLE, "far"),
        ([Ringing(), FarGone(19, "User alerting, no answer", 480)], Outcome.NO_ANSWER, "far"),
        ([FarGone(19, "User alerting, no answer", 480)], Outcome.UNREACHABLE, "far"),
        ([FarHungUp(), DialEnded("CONGESTION"), FarGone(34, "", 503)], Outcome.CONGESTION, "far"),
        ([Ringing(), RingTimedOut()], Outcome.NO_ANSWER, "us"),
        ([RingTimedOut()], Outcome.UNREACHABLE, "us"),
        ([Ringing(), HangupWanted("Ctrl-C")], Outcome.CANCELLED, "us"),
        ([FarGone()], Outcome.FAILED, "asterisk"),
        ([CalleeAnswered(), FarHungUp()], Outcome.ANSWERED, "far"),
        ([CalleeAnswered(), MediaGone()], Outcome.FAILED, "asterisk"),
    ],
)
def test_outbound_outcomes(facts: list[Fact], outcome: Outcome, by: str) -> None:
    flow = CallFlow()
    commands = list(flow.push(DialWanted()))
    for fact in facts:
        commands += flow.push(fact)
    final = settle(flow, commands)[-1]
    assert isinstance(final, Finished)
    assert (final.ending.outcome, final.ending.by) == (outcome, by)


def test_an_endpoint_that_does_not_exist() -> None:
    flow = CallFlow()
    flow.push(DialWanted())
    refused = AriNotFound("dial PJSIP/1@nowhere", 500, "no such endpoint")
    # Nothing exists, but a lost answer looks the same to the flow, so it makes sure.
    assert flow.push(StepFailed(Originate(), refused)) == (HangUpFar(),)
    finished = flow.push(StepDone(HangUpFar()))
    assert finished == (Finished(Ending(Outcome.UNREACHABLE, "asterisk", str(refused))),)


def test_caller_gone_before_a_step_is_told_by_the_hangup_not_by_the_step() -> None:
    for refusal in (
        AriNotFound("answer", 404, "gone"),
        AriConflict("answer", 409, "not in Stasis"),
        AriError("answer", 500, "Failed to answer channel"),
    ):
        flow = CallFlow()
        walk(flow, INBOUND[:4])
        commands = list(flow.push(StepFailed(Answer(), refusal)))
        assert HandBack("failed") in commands
        commands += flow.push(FarHungUp())
        commands += flow.push(FarGone(16, "Normal Clearing"))
        final = settle(flow, commands)[-1]
        ending = Ending(Outcome.CANCELLED, "far", "hung up, cause 16 (Normal Clearing)")
        assert final == Finished(ending)


def test_failed_set_up_gives_the_caller_back() -> None:
    flow = CallFlow()
    flow.push(CallerArrived())
    assert flow.push(StepFailed(CreateMedia(), BROKEN)) == (HandBack("failed"), HangUpMedia())
    assert flow.push(StepDone(HandBack("failed"))) == ()
    assert flow.push(StepDone(HangUpMedia())) == ()
    # The bridge was still being made.
    assert flow.push(StepDone(CreateBridge())) == (DeleteBridge(),)
    assert flow.push(StepDone(DeleteBridge())) == (Finished(Ending(Outcome.FAILED, "asterisk", str(BROKEN))),)


def test_a_caller_for_whom_asterisk_has_no_port_meets_a_busy_line() -> None:
    flow = CallFlow()
    flow.push(CallerArrived())
    full = AriFull("open the media channel", None, "12 of Asterisk's 12 pairs of RTP ports are taken")
    assert HandBack("busy") in flow.push(StepFailed(CreateMedia(), full))


def test_a_failed_hand_back_becomes_a_hang_up() -> None:
    flow = CallFlow()
    flow.push(CallerArrived())
    flow.push(HandBackWanted("busy", "too many calls"))
    assert flow.push(StepFailed(HandBack("busy"), BROKEN)) == (HangUpFar("congestion"),)


def test_hand_back_of_a_callee_is_a_hang_up() -> None:
    flow = CallFlow()
    walk(flow, OUTBOUND)
    commands = settle(flow, list(flow.push(HandBackWanted("failed", "the engines failed"))))
    assert HangUpFar() in commands
    assert commands[-1] == Finished(Ending(Outcome.FAILED, "us", "the engines failed"))


@pytest.mark.parametrize("result", ["completed", "handover"])
def test_conversation_over_by_hand_back(result: str) -> None:
    flow = CallFlow()
    walk(flow, INBOUND)
    commands = settle(flow, list(flow.push(HandBackWanted(result, "the bot said goodbye"))))
    assert HandBack(result) in commands
    assert commands[-1] == Finished(Ending(Outcome.ANSWERED, "us", "the bot said goodbye"))


def test_hangup_wanted_before_the_begin() -> None:
    flow = CallFlow()
    assert flow.push(HangupWanted("shut-down")) == (Finished(Ending(Outcome.CANCELLED, "us", "shut-down")),)


def test_conversation_is_stopped_while_it_starts() -> None:
    flow = CallFlow()
    walk(flow, INBOUND[:-1])
    assert StopConversation() in flow.push(FarHungUp())
    assert flow.push(StepFailed(StartConversation(), BROKEN)) == ()


@pytest.mark.parametrize("path", [INBOUND, OUTBOUND], ids=["inbound", "outbound"])
@pytest.mark.parametrize("ender", ENDERS, ids=repr)
def test_every_end_at_every_stage_leaves_nothing(path: list[tuple[Fact, State]], ender: Fact) -> None:
    for length in range(1, len(path) + 1):
        flow = CallFlow()
        issued = walk(flow, path[:length])
        answered = {fact.command for fact, _ in path[:length] if isinstance(fact, StepDone)}
        key = (flow.state, type(ender))
        if key not in TABLE:
            assert key in IGNORED or (key[0] in {S.DIALING, S.RINGING} and type(ender) in NO_MEDIA_YET), key
            continue
        if TABLE[key].state is not S.ENDING:
            continue
        unanswered: list[Command] = [c for c in issued if c not in answered]
        commands = settle(flow, unanswered + list(flow.push(ender)))
        assert flow.state is S.ENDED
        assert [c for c in commands if isinstance(c, Finished)] == commands[-1:]
        check_nothing_left(issued + commands, ender)


NO_MEDIA_YET = {MediaGone, MediaUnbridged}


def check_nothing_left(commands: list[Command], ender: Fact | None = None) -> None:
    made, removed = kinds(commands), kinds(commands)
    if "CreateBridge" in made:
        assert "DeleteBridge" in removed
    if "CreateMedia" in made and not isinstance(ender, MediaGone):
        assert "HangUpMedia" in removed
    if "StartConversation" in made:
        assert "StopConversation" in removed
    if not isinstance(ender, FarGone | FarLeft):
        assert {"HangUpFar", "HandBack"} & removed


ALL_KINDS: list[type] = [
    *(CallerArrived, DialWanted, Ringing, DialEnded, CalleeAnswered, MediaEntered, StepFailed),
    *(FarHungUp, FarLeft, FarGone, MediaGone, MediaUnbridged, RingTimedOut, SetupTimedOut),
    *(HangupWanted, HandBackWanted, Prepared),
    *(Originate, CreateBridge, CreateMedia, Answer, Join, StartConversation),
    *(StopConversation, HangUpFar, HandBack, HangUpMedia, DeleteBridge),
]

# What only a fault of ours could report: state -> kinds of facts.
STEPS = {
    *(Originate, CreateBridge, CreateMedia, Answer, Join, StartConversation),
    *(StopConversation, HangUpFar, HandBack, HangUpMedia, DeleteBridge),
}
PREPARATION = {CreateBridge, CreateMedia}
REMOVALS = {StopConversation, HangUpFar, HandBack, HangUpMedia, DeleteBridge}
IMPOSSIBLE: dict[State, set[type]] = {
    S.NEW: set(ALL_KINDS) - {CallerArrived, DialWanted, HangupWanted},
    S.DIALING: {DialWanted, MediaEntered, MediaGone, MediaUnbridged, Prepared} | STEPS - {Originate},
    S.RINGING: {DialWanted, MediaEntered, MediaGone, MediaUnbridged, Prepared} | STEPS - {Originate},
    S.ANSWERED: {DialWanted} | STEPS - {Originate} - PREPARATION,
    S.ARRIVED: {DialWanted} | STEPS - {Originate} - PREPARATION,
    S.ANSWERING: {DialWanted, Prepared} | STEPS - {Originate, Answer},
    S.JOINING: {DialWanted, Prepared} | STEPS - {Originate, Join},
    S.TALKING: {DialWanted, Prepared} | STEPS - {Originate, StartConversation},
    S.ENDING: {DialWanted, Prepared},
    S.ENDED: {DialWanted, Prepared, StepFailed} | STEPS,
}


def test_every_pair_is_in_the_table_or_ignored_or_impossible() -> None:
    table: set[Key] = set(TABLE)
    assert not table & IGNORED
    for state in State:
        decided = {kind for where, kind in table | IGNORED if where is state}
        assert decided == set(ALL_KINDS) - IMPOSSIBLE[state], state


def test_what_cannot_come_raises() -> None:
    flow = CallFlow()
    with pytest.raises(ValueError, match="FarHungUp cannot come in state NEW"):
        flow.push(FarHungUp())
    flow.push(DialWanted())
    with pytest.raises(ValueError, match="DialWanted cannot come in state DIALING"):
        flow.push(DialWanted())
    flow.push(StepDone(Originate()))
    with pytest.raises(ValueError, match="Originate was not asked for, or is answered twice"):
        flow.push(StepDone(Originate()))


NEWS: list[Fact] = [
    *ENDERS,
    *(Ringing(), DialEnded("NOANSWER"), CalleeAnswered(), MediaEntered(), CallerArrived()),
]


@given(outbound=st.booleans(), data=st.data())
def test_any_order_ends_and_leaves_nothing(outbound: bool, data: st.DataObject) -> None:
    """Answers and news in random order, failures included: it ends once, and what was made was removed."""
    flow = CallFlow()
    commands = list(flow.push(DialWanted() if outbound else CallerArrived()))
    waiting: list[Step] = [c for c in commands if not isinstance(c, Finished)]
    gone: set[str] = set()
    for _ in range(60):
        if flow.state is S.ENDED:
            break
        fact = draw_fact(data, flow, waiting)
        if isinstance(fact, FarGone | FarLeft):
            gone.add("far")
        if isinstance(fact, MediaGone):
            gone.add("media")
        new = flow.push(fact)
        commands += new
        waiting += [c for c in new if not isinstance(c, Finished)]
    if flow.state is not S.ENDED:
        if flow.state is not S.ENDING:
            new = flow.push(HangupWanted("enough"))
            commands += new
            waiting += [c for c in new if not isinstance(c, Finished)]
        commands += settle(flow, waiting)
    assert flow.state is S.ENDED
    assert sum(isinstance(command, Finished) for command in commands) == 1
    made = kinds(commands)
    assert "CreateBridge" not in made or "DeleteBridge" in made
    assert "CreateMedia" not in made or "HangUpMedia" in made or "media" in gone
    assert "StartConversation" not in made or "StopConversation" in made
    assert {"HangUpFar", "HandBack"} & made or "far" in gone


def draw_fact(data: st.DataObject, flow: CallFlow, waiting: list[Step]) -> Fact:
    possible = [f for f in NEWS if (flow.state, type(f)) in TABLE or (flow.state, type(f)) in IGNORED]
    answer: bool = data.draw(st.booleans())
    if waiting and answer:
        command = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
        failed = data.draw(st.integers(0, 5)) == 0
        return StepFailed(command, BROKEN) if failed else StepDone(command)
    return data.draw(st.sampled_from(possible))
