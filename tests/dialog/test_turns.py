"""Every pair of state and frame, the bounds, and that no audio of a turn is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.audio.format import FRAME_BYTES, FRAME_MS, ms_to_bytes
from ari_app.dialog.turns import (
    TurnEnded,
    TurnEvent,
    TurnPaused,
    TurnResumed,
    TurnSettings,
    TurnStarted,
    TurnState,
    TurnTracker,
)

SETTINGS = TurnSettings(
    silence_duration_ms=400,
    min_speech_ms=100,
    max_onset_gap_ms=60,
    pre_roll_ms=60,
    kept_tail_ms=100,
    max_turn_ms=2000,
)


class Caller:
    """Feeds numbered frames, so that a turn's audio tells which frames it holds."""

    def __init__(self, settings: TurnSettings = SETTINGS) -> None:
        self.tracker = TurnTracker(settings)
        self.number = 0
        self.events: list[TurnEvent] = []

    def push(self, voiced: bool, count: int = 1) -> None:
        for _ in range(count):
            frame = self.number.to_bytes(4, "big") * (FRAME_BYTES // 4)
            event = self.tracker.push(frame, voiced, self.number * FRAME_MS / 1000)
            self.number += 1
            if event:
                self.events.append(event)

    def ended(self) -> list[TurnEnded]:
        return [event for event in self.events if isinstance(event, TurnEnded)]


def frames_of(pcm: bytes) -> list[int]:
    return [int.from_bytes(pcm[i : i + 4], "big") for i in range(0, len(pcm), FRAME_BYTES)]


def in_state(state: TurnState) -> Caller:
    caller = Caller()
    voiced, silent = {
        TurnState.QUIET: (0, 0),
        TurnState.ONSET: (1, 0),
        TurnState.SPEAKING: (5, 0),
        TurnState.TRAILING: (5, 1),
    }[state]
    caller.push(True, voiced)
    caller.push(False, silent)
    assert caller.tracker.state is state
    return caller


@pytest.mark.parametrize(
    ("state", "voiced", "frames", "after", "event"),
    [
        (TurnState.QUIET, False, 1, TurnState.QUIET, None),
        (TurnState.QUIET, True, 1, TurnState.ONSET, None),
        (TurnState.ONSET, True, 3, TurnState.ONSET, None),
        (TurnState.ONSET, True, 4, TurnState.SPEAKING, TurnStarted),
        (TurnState.ONSET, False, 3, TurnState.ONSET, None),
        (TurnState.ONSET, False, 4, TurnState.QUIET, None),
        (TurnState.SPEAKING, True, 1, TurnState.SPEAKING, None),
        (TurnState.SPEAKING, True, 95, TurnState.QUIET, TurnEnded),
        (TurnState.SPEAKING, False, 1, TurnState.TRAILING, None),
        (TurnState.TRAILING, True, 1, TurnState.SPEAKING, None),
        (TurnState.TRAILING, False, 18, TurnState.TRAILING, None),
        (TurnState.TRAILING, False, 19, TurnState.QUIET, TurnEnded),
    ],
)
def test_the_table(
    state: TurnState, voiced: bool, frames: int, after: TurnState, event: type[TurnEvent] | None
) -> None:
    caller = in_state(state)
    caller.events.clear()
    caller.push(voiced, frames)
    assert caller.tracker.state is after
    assert [type(e) for e in caller.events] == ([event] if event else [])
    assert caller.tracker.speaking == (after in (TurnState.SPEAKING, TurnState.TRAILING))


def test_a_turn_holds_pre_roll_speech_and_a_short_tail() -> None:
    caller = Caller()
    caller.push(False, 10)
    caller.push(True, 10)  # frames 10 to 19
    caller.push(False, 20)
    (turn,) = caller.ended()
    assert frames_of(turn.pcm) == list(range(7, 25))
    assert turn.speech_ms == 200
    assert (turn.onset_at, turn.speech_end_at, turn.at) == (0.2, 0.38, 0.78)
    assert not turn.forced


def test_speech_is_confirmed_with_the_time_of_its_onset() -> None:
    caller = Caller()
    caller.push(False, 10)
    caller.push(True, 5)
    assert caller.events == [TurnStarted(at=0.28, onset_at=0.2)]


def test_default_confirmation_leaves_a_frame_of_room_in_300_ms() -> None:
    caller = Caller(TurnSettings())
    caller.push(False, 10)
    caller.push(True, 15)
    (started,) = caller.events
    assert isinstance(started, TurnStarted)
    assert started.at - started.onset_at + 2 * FRAME_MS / 1000 < 0.3


def test_a_gap_inside_a_word_counts_as_speech_and_a_pause_does_not() -> None:
    caller = Caller()
    caller.push(True, 5)
    caller.push(False, 3)
    caller.push(True, 5)
    caller.push(False, 10)
    caller.push(True, 5)
    caller.push(False, 20)
    (turn,) = caller.ended()
    assert turn.speech_ms == (5 + 3 + 5 + 5) * FRAME_MS


def test_a_click_before_a_word_stays_in_the_pre_roll() -> None:
    caller = Caller()
    caller.push(True, 1)
    caller.push(False, 4)
    caller.push(True, 5)
    caller.push(False, 20)
    (turn,) = caller.ended()
    assert frames_of(turn.pcm)[0] == 2


def test_a_forced_end_hands_over_without_loss_or_repetition() -> None:
    caller = Caller()
    caller.push(True, 250)
    caller.push(False, 20)
    assert [turn.forced for turn in caller.ended()] == [True, True, False]
    heard = [number for turn in caller.ended() for number in frames_of(turn.pcm)]
    assert heard == list(range(255))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=30))
def test_any_caller(runs: list[tuple[bool, int]]) -> None:
    caller = Caller()
    voiced_frames = set()
    for voiced, count in runs:
        if voiced:
            voiced_frames |= set(range(caller.number, caller.number + count))
        caller.push(voiced, count)
    caller.push(False, 20)
    kinds = [type(event) for event in caller.events]
    assert kinds[::2] == [TurnStarted] * len(kinds[::2])
    assert kinds[1::2] == [TurnEnded] * len(kinds[::2])
    longest = ms_to_bytes(SETTINGS.max_turn_ms + SETTINGS.pre_roll_ms)
    for turn in caller.ended():
        numbers = frames_of(turn.pcm)
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert len(turn.pcm) <= longest
        assert turn.onset_at <= turn.speech_end_at <= turn.at
        assert SETTINGS.min_speech_ms <= turn.speech_ms <= SETTINGS.max_turn_ms
        between = range(round(turn.onset_at * 50), round(turn.speech_end_at * 50) + 1)
        assert voiced_frames & set(between) <= set(numbers)


# --- pauses


PAUSING = replace(SETTINGS, pause_ms=100)


def test_a_pause_is_said_once_and_holds_the_turn_so_far() -> None:
    caller = Caller(PAUSING)
    caller.push(True, 10)
    caller.push(False, 19)
    started, paused = caller.events
    assert isinstance(started, TurnStarted) and isinstance(paused, TurnPaused)
    assert frames_of(paused.turn.pcm) == list(range(15))
    assert paused.turn.speech_end_at == 9 * FRAME_MS / 1000
    caller.push(False)
    assert isinstance(caller.events[-1], TurnEnded)
    assert caller.events[-1].pcm == paused.turn.pcm  # kept_tail_ms is as long as the pause


def test_a_caller_who_goes_on_resumes_the_turn_and_may_pause_again() -> None:
    caller = Caller(PAUSING)
    for _ in range(2):
        caller.push(True, 10)
        caller.push(False, 6)
    caller.push(True, 1)
    assert [type(event) for event in caller.events] == [
        *(TurnStarted, TurnPaused, TurnResumed, TurnPaused, TurnResumed),
    ]
    second = caller.events[3]
    assert isinstance(second, TurnPaused) and frames_of(second.turn.pcm) == list(range(31))


@pytest.mark.parametrize("pause_ms", [0, 400, 500])
def test_no_pause_is_said_without_room_for_it(pause_ms: int) -> None:
    caller = Caller(replace(SETTINGS, pause_ms=pause_ms))
    caller.push(True, 10)
    caller.push(False, 30)
    assert [type(event) for event in caller.events] == [TurnStarted, TurnEnded]


def test_a_click_that_is_no_speech_never_pauses() -> None:
    caller = Caller(replace(PAUSING, pause_ms=20))
    caller.push(True, 2)
    caller.push(False, 30)
    assert caller.events == []


@given(st.lists(st.booleans(), max_size=400))
def test_pauses_change_nothing_else(frames: list[bool]) -> None:
    with_pauses, without = Caller(PAUSING), Caller(SETTINGS)
    for voiced in frames:
        with_pauses.push(voiced)
        without.push(voiced)
    kept = [event for event in with_pauses.events if not isinstance(event, TurnPaused | TurnResumed)]
    assert kept == without.events
    open_pause = False
    for event in with_pauses.events:
        if isinstance(event, TurnPaused):
            assert not open_pause
            open_pause = True
        elif isinstance(event, TurnResumed):
            assert open_pause
            open_pause = False
        elif isinstance(event, TurnEnded):
            open_pause = False
