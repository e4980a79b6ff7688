"""What nobody may know of what was said while the recording was paused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ari_app.dialog.ports import BargeInDismissed, BotSaid, CallerSaid, Fact
from ari_app.record.pauses import MARGIN_S, WITHHELD, Pauses

CARD = "4111 1111"


def caller_said(onset_at: float | None, ended_at: float | None) -> CallerSaid:
    return CallerSaid(1, CARD, "en", b"12", onset_at, ended_at)


def paused_from(begin: float, end: float) -> Pauses:
    pauses = Pauses()
    pauses.begin(begin)
    pauses.end(end)
    return pauses


@given(
    st.floats(0, 100),
    st.floats(0.1, 30),
    st.floats(0, 130),
    st.floats(0, 20),
    st.floats(0, 60),
)
def test_when_it_was_spoken_counts_not_when_it_was_understood(
    begin: float, lasts: float, onset_at: float, spoken_s: float, later_s: float
) -> None:
    pauses = paused_from(begin, begin + lasts)
    ended_at = onset_at + spoken_s
    seen = pauses.withheld(caller_said(onset_at, ended_at), ended_at + later_s)
    assert isinstance(seen, CallerSaid)
    if onset_at <= begin + lasts and ended_at >= begin:
        assert (seen.text, seen.language, seen.pcm) == (WITHHELD, None, b"")
    if onset_at >= begin + lasts + MARGIN_S or ended_at <= begin - MARGIN_S:
        assert (seen.text, seen.language, seen.pcm) == (CARD, "en", b"12")


def test_every_fact_that_carries_words_is_withheld() -> None:
    pauses = paused_from(10, 20)
    facts: list[Fact] = [
        caller_said(12, 14),
        BotSaid(1, CARD, CARD, False, b"12", 12),
        BotSaid(1, CARD, "", True, b"", 12),
        BargeInDismissed(1, 14.0, 480.0, CARD, 12),
    ]
    for fact in facts:
        assert CARD in repr(fact) and CARD not in repr(pauses.withheld(fact, 15.0))


def test_what_lacks_a_begin_may_have_begun_at_any_time() -> None:
    assert CARD not in repr(paused_from(10, 20).withheld(caller_said(None, 90.0), 95.0))
    assert CARD in repr(Pauses().withheld(caller_said(None, 90.0), 95.0))


def test_a_pause_lasts_until_it_is_ended() -> None:
    pauses = Pauses()
    pauses.begin(10)
    assert pauses.paused
    pauses.begin(50)  # pressed again
    assert CARD not in repr(pauses.withheld(caller_said(20, 30), 31.0))
    pauses.end(60)
    pauses.end(70)
    assert not pauses.paused
    assert CARD in repr(pauses.withheld(caller_said(61, 62), 63.0))


def test_whoever_presses_the_button_all_day_fills_no_memory() -> None:
    pauses = Pauses()
    for press in range(1000):
        pauses.begin(press * 0.01)
        pauses.end(press * 0.01 + 0.005)
    assert len(pauses._spans) < 30
