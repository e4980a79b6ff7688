"""Nobody waits in silence, by the frame."""

from __future__ import annotations

from ari_app.dialog.silence import Lack, Silence

FRAME_S = 0.02


def lacks(silence: Silence, frames: int, *, at: int = 0, **state: bool) -> list[tuple[int, Lack]]:
    """What is lacking, by the number of the frame."""
    found = [(n, silence.push(n * FRAME_S, **{"due": True, **state})) for n in range(at, at + frames)]
    return [(n, lack) for n, lack in found if lack]


def test_a_caller_without_an_answer_is_told_three_times_and_then_it_is_given_up() -> None:
    silence = Silence(1.0)
    told = [(50, Lack.A_WORD), (100, Lack.A_WORD), (150, Lack.A_WORD)]
    assert lacks(silence, 220) == [*told, (200, Lack.THE_ANSWER)]


def test_sound_ends_a_silence() -> None:
    silence = Silence(1.0)
    assert lacks(silence, 40) == []
    assert lacks(silence, 100, at=40, sounding=True) == []
    assert lacks(silence, 60, at=140) == [(189, Lack.A_WORD)]


def test_a_sentence_that_breaks_off_is_given_up_at_once() -> None:
    silence = Silence(1.0)
    assert lacks(silence, 10, sounding=True) == []
    assert lacks(silence, 60, at=10, unfinished=True) == [(59, Lack.THE_ANSWER)]


def test_nothing_is_lacking_when_nothing_is_due() -> None:
    silence = Silence(1.0)
    assert lacks(silence, 120) == [(50, Lack.A_WORD), (100, Lack.A_WORD)]
    assert lacks(silence, 200, at=120, due=False) == []
    assert lacks(silence, 60, at=320) == [(370, Lack.A_WORD)]  # from the beginning
