"""What SIP statuses and Q.850 causes mean; the pairs are those measured with Asterisk 22.10.1."""

from __future__ import annotations

import pytest

from ari_app.ari.outcome import Outcome, unanswered

O = Outcome  # noqa: E741


@pytest.mark.parametrize(
    ("dialstatus", "cause", "tech_cause", "outcome"),
    [
        ("BUSY", 17, 486, O.BUSY),
        ("BUSY", 17, 600, O.BUSY),
        ("NOANSWER", 1, 404, O.UNREACHABLE),
        ("NOANSWER", 21, 603, O.REJECTED),
        ("NOANSWER", 21, 403, O.REJECTED),
        ("NOANSWER", 19, 480, O.NO_ANSWER),
        ("NOANSWER", 18, 408, O.NO_ANSWER),
        ("NOANSWER", 22, 410, O.UNREACHABLE),
        ("NOANSWER", 28, 484, O.UNREACHABLE),
        ("NOANSWER", 58, 488, O.REJECTED),
        ("NOANSWER", 38, 500, O.CONGESTION),
        ("CONGESTION", 34, 503, O.CONGESTION),
        ("NOANSWER", 127, 607, O.REJECTED),
        ("CANCEL", 23, 302, O.UNREACHABLE),
        ("RINGING", 19, 480, O.NO_ANSWER),
        # Channels without SIP.
        ("", 3, None, O.UNREACHABLE),
        ("BUSY", 17, None, O.BUSY),
        ("", 34, None, O.CONGESTION),
        ("", 21, None, O.REJECTED),
        ("BUSY", 0, None, O.BUSY),
        ("CHANUNAVAIL", 0, None, O.UNREACHABLE),
        ("CONGESTION", None, None, O.CONGESTION),
        ("", 16, None, O.FAILED),
        ("", 127, None, O.FAILED),
    ],
)
def test_after_ringing(dialstatus: str, cause: int | None, tech_cause: int | None, outcome: Outcome) -> None:
    ending = unanswered(cause=cause, tech_cause=tech_cause, dialstatus=dialstatus, rang=True)
    assert ending.outcome is outcome
    assert ending.by == "far"


@pytest.mark.parametrize(("cause", "tech_cause"), [(19, 480), (18, 408), (18, None)])
def test_no_answer_without_ringing_is_unreachable(cause: int, tech_cause: int | None) -> None:
    assert unanswered(cause=cause, tech_cause=tech_cause, rang=False).outcome is Outcome.UNREACHABLE


def test_detail() -> None:
    assert (
        unanswered(cause=17, cause_txt="User busy", tech_cause=486, rang=True).detail == "SIP 486 (User busy)"
    )
    assert unanswered(cause=3, cause_txt="No route", rang=False).detail == "cause 3 (No route)"
    assert unanswered(cause=None, rang=False).detail == "no cause given"
