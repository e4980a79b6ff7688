"""What an answer waited for: every way to tell it adds up to what the caller waited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from ari_app.dialog.ports import TurnTimed
from ari_app.dialog.waterfall import STAGES, waterfall

# As ms after the caller's last word: the marks of real turns.
GUESSED = {
    "speech_end_at": 0,
    "endpoint_at": 1000,
    "transcript_at": 500,
    "first_token_at": 522,
    "first_sentence_at": 558,
    "first_tts_byte_at": 574,
    "first_frame_at": 1009,
}
SLOW = {
    "speech_end_at": 0,
    "endpoint_at": 1000,
    "transcript_at": 700,
    "first_token_at": 1300,
    "first_sentence_at": 1350,
    "first_tts_byte_at": 1400,
    "first_frame_at": 1420,
}
REALTIME = {
    "speech_end_at": 0,
    "endpoint_at": 500,
    "transcript_at": None,
    "first_token_at": 1297,
    "first_sentence_at": None,
    "first_tts_byte_at": 1294,
    "first_frame_at": 1301,
}


def marks(ms: Mapping[str, int | None], begin_s: float = 100.0) -> dict[str, float | None]:
    return {name: None if after is None else begin_s + after / 1000 for name, after in ms.items()}


def told(ms: Mapping[str, int | None]) -> tuple[int | None, dict[str, int], dict[str, int]]:
    fall = waterfall(marks(ms))
    return (
        fall.wait_ms,
        {stage.name: stage.ms for stage in fall.stages},
        {stage.name: stage.end_ms for stage in fall.ahead},
    )


def test_an_answer_that_was_ready_in_the_silence_window_waited_for_nothing_else() -> None:
    assert told(GUESSED) == (
        1009,
        {"silence window": 1000, "on the line": 9},
        {"speech-to-text": 500, "first word": 522, "first sentence": 558, "first speech": 574},
    )


def test_what_was_not_ready_counts_from_the_end_of_the_silence_window() -> None:
    assert told(SLOW) == (
        1420,
        {
            "silence window": 1000,
            "first word": 300,
            "first sentence": 50,
            "first speech": 50,
            "on the line": 20,
        },
        {"speech-to-text": 700},
    )


def test_realtime_speaks_before_it_writes() -> None:
    assert told(REALTIME) == (
        1301,
        {"silence window": 500, "first speech": 794, "first word": 3, "on the line": 4},
        {},
    )


def test_words_that_come_after_the_speech_are_no_wait() -> None:
    fall = told({**REALTIME, "transcript_at": 1500, "first_token_at": 1400})
    assert fall == (1301, {"silence window": 500, "first speech": 794, "on the line": 7}, {})


def test_an_answer_that_was_never_heard_has_no_wait() -> None:
    fall = told({**SLOW, "first_tts_byte_at": None, "first_frame_at": None})
    assert fall[0] is None
    assert fall[1] == {"silence window": 1000, "first word": 300, "first sentence": 50}


times_ms = st.integers(min_value=0, max_value=20_000)
maybe_ms = st.none() | times_ms


@given(st.lists(maybe_ms, min_size=5, max_size=5), times_ms, st.floats(0, 1e6))
def test_the_stages_add_up_to_the_wait(reached: list[int | None], heard_ms: int, begin_s: float) -> None:
    """In every order of the marks, those of both modes included, and whichever of them are missing."""
    names = ("endpoint_at", "transcript_at", "first_token_at", "first_sentence_at", "first_tts_byte_at")
    ms = {"speech_end_at": 0, **dict(zip(names, reached, strict=True)), "first_frame_at": heard_ms}
    times = marks(ms, begin_s)
    fall = waterfall(times)
    heard_at, spoken_at = times["first_frame_at"], times["speech_end_at"]
    assert heard_at is not None and spoken_at is not None
    assert fall.wait_ms == round((heard_at - spoken_at) * 1000)
    assert sum(stage.ms for stage in fall.stages) == fall.wait_ms
    assert all(stage.ms >= 0 for stage in (*fall.stages, *fall.ahead))
    ends = [0, *(stage.end_ms for stage in fall.stages)]
    assert [stage.begin_ms for stage in fall.stages] == ends[:-1], "each begins where the one before ends"
    assert len({stage.name for stage in (*fall.stages, *fall.ahead)}) == len(fall.stages) + len(fall.ahead)


def test_the_marks_are_those_of_a_turn() -> None:
    turn = asdict(TurnTimed(1, 10.0, 11.0))
    assert {mark for _, mark in STAGES} | {"turn", "speech_end_at"} == set(turn)
    assert waterfall(turn).stages[0].ms == 1000


def test_a_log_that_knows_no_times_has_no_stages() -> None:
    assert waterfall({}).stages == waterfall({"first_frame_at": 1.0}).stages == ()
    backwards = waterfall({"speech_end_at": 2.0, "endpoint_at": 1.0, "first_frame_at": 1.0})
    assert backwards.wait_ms is None and backwards.stages == ()
    assert waterfall({"speech_end_at": -1e308, "endpoint_at": 1e308}).stages[0].ms == 0
