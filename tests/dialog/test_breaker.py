"""The table of a breaker."""

from __future__ import annotations

import pytest

from ari_app.dialog.breaker import FIRST_PAUSE_S, LONGEST_PAUSE_S, MAX_FAILURES, Breaker
from ari_app.errors import EngineError, EngineRejected, EngineTimeout, EngineUnreachable

DEAD = EngineUnreachable("chat", "nobody answers")
KEY = EngineRejected("chat", "the key was refused", permanent=True, status=401)


def tripped(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    assert [breaker.failed(DEAD, now) for _ in range(MAX_FAILURES)] == [False, False, True]
    return breaker


def test_failures_in_a_row_take_an_engine_out_of_service_and_one_success_is_enough() -> None:
    breaker = Breaker()
    for _ in range(9):
        assert not breaker.failed(DEAD, 0.0) and not breaker.failed(DEAD, 0.0)
        assert breaker.allows(0.0) and not breaker.succeeded()
    assert not breaker.is_open


@pytest.mark.parametrize(
    ("error", "pause_s"),
    [
        (KEY, FIRST_PAUSE_S),
        (EngineRejected("chat", "slow down", status=429, retry_after_s=20.0), 20.0),
        (EngineRejected("chat", "slow down", status=429, retry_after_s=86400.0), LONGEST_PAUSE_S),
        (EngineRejected("chat", "slow down", status=429, retry_after_s=2.0), FIRST_PAUSE_S),
        (EngineRejected("chat", "slow down", status=429, retry_after_s=1.0), None),
        (EngineRejected("chat", "slow down", status=429), None),
        (EngineTimeout("chat", "no answer"), None),
        (EngineError("chat", "nonsense"), None),
    ],
)
def test_some_failures_say_that_the_next_request_fails_too(error: EngineError, pause_s: float | None) -> None:
    breaker = Breaker()
    assert breaker.failed(error, 100.0) is (pause_s is not None)
    assert breaker.retry_in_s(100.0) == (pause_s or 0.0)
    assert breaker.allows(100.0) is (pause_s is None)


def test_after_the_pause_one_request_tries_it_for_all() -> None:
    breaker = tripped()
    assert not breaker.allows(FIRST_PAUSE_S - 0.01)
    assert breaker.allows(FIRST_PAUSE_S)
    assert not breaker.allows(FIRST_PAUSE_S + 1), "the others go on waiting"
    assert breaker.succeeded()
    assert breaker.allows(FIRST_PAUSE_S + 1) and not breaker.is_open


def test_a_try_that_nobody_waited_for_is_none() -> None:
    breaker = tripped()
    assert breaker.allows(FIRST_PAUSE_S)
    breaker.left()
    assert breaker.allows(FIRST_PAUSE_S)


def test_each_try_that_fails_doubles_the_pause_up_to_a_minute() -> None:
    breaker, now, pauses = tripped(), 0.0, []
    for _ in range(7):
        pauses.append(breaker.retry_in_s(now))
        now += pauses[-1]
        assert breaker.allows(now)
        assert not breaker.failed(DEAD, now), "it was out of service before"
    assert pauses == [3.0, 6.0, 12.0, 24.0, 48.0, 60.0, 60.0]


def test_an_answer_that_begins_is_on_probation_until_its_end() -> None:
    breaker = tripped()
    assert breaker.allows(FIRST_PAUSE_S)
    breaker.began()
    assert not breaker.is_open and breaker.allows(FIRST_PAUSE_S), "all may ask it"
    assert not breaker.failed(DEAD, FIRST_PAUSE_S), "that was told before"
    assert breaker.retry_in_s(FIRST_PAUSE_S) == 2 * FIRST_PAUSE_S
    assert breaker.allows(3 * FIRST_PAUSE_S)
    breaker.began()
    assert breaker.succeeded(), "it had been out of service"
    assert not breaker.failed(DEAD, 100.0) and not breaker.is_open and not breaker.succeeded()


def test_late_failures_of_older_requests_do_not_lengthen_the_pause() -> None:
    breaker = tripped()
    for _ in range(50):
        assert not breaker.failed(DEAD, 1.0)
    assert breaker.retry_in_s(1.0) == FIRST_PAUSE_S - 1


def test_even_a_wrong_key_is_tried_again() -> None:
    breaker = Breaker()
    assert breaker.failed(KEY, 0.0)
    assert breaker.allows(FIRST_PAUSE_S)
    breaker.succeeded()
    assert breaker.failures == 0
