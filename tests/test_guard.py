"""Which numbers may be called and how much: tables, and properties over all numbers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.guard import (
    EMERGENCY,
    WINDOW_S,
    Dialled,
    Rules,
    international_forms,
    is_number,
    kept,
    limit_reached,
    refusal,
    remaining_s,
)

AMERICA = Rules(country_code="1")
BRITAIN = Rules(country_code="44")
GERMANY = Rules(country_code="49")
OWN = Rules(extension_digits=4)


@pytest.mark.parametrize(
    ("rules", "number"),
    [
        (OWN, "100"),
        (OWN, "7000"),
        (Rules(extension_digits=6), "123456"),
        (Rules(allow=("+1",)), "+12125551234"),
        (Rules(allow=("+1555",)), "+15551234567"),
        (Rules(allow=("+15551234567",)), "+15551234567"),
        (Rules(allow=("+1",)), "0012125551234"),
        (Rules(allow=("+1",)), "01112125551234"),
        (AMERICA, "+12125551234"),
        (AMERICA, "12125551234"),
        (BRITAIN, "02071234567"),
        (BRITAIN, "+442071234567"),
        (BRITAIN, "00442071234567"),
        (BRITAIN, "01132345678"),  # Leeds, and no 011
        (Rules(allow=("112",)), "112"),
        (Rules(allow=("*97",)), "*97"),
        (Rules(allow=("5551234567",)), "5551234567"),
        (Rules(allow=("+1", "+1900")), "+19005551234"),
        (Rules(allow=("+1212",), deny=("+1",)), "+12125551234"),
        (GERMANY, "030987654"),
        (GERMANY, "+4915112345678"),
        (Rules(country_code="39"), "0612345678"),
    ],
)
def test_allowed(rules: Rules, number: str) -> None:
    assert refusal(number, rules) is None


@pytest.mark.parametrize(
    ("rules", "number", "said"),
    [
        (Rules(), "+15551234567", "DIAL_ALLOW=+15551234567 allows this number"),
        (Rules(), "15551234567", "neither a number in international form"),
        (Rules(), "00442071234567", "+442071234567"),
        (Rules(), "01144", "+44"),
        (OWN, "12345", "DIAL_EXTENSION_DIGITS"),
        (Rules(), "100", "DIAL_EXTENSION_DIGITS"),
        (Rules(country_code="33", extension_digits=4), "15", "emergency"),
        (Rules(), "911", "emergency"),
        (Rules(), "112", "DIAL_ALLOW=112"),
        (OWN, "411", "directory"),
        (Rules(extension_digits=6), "118118", "directory"),
        (Rules(), "*72", "command to the exchange"),
        (Rules(allow=("+1",)), "+1*2#", "command to the exchange"),
        (Rules(extension_digits=0), "100", "DIAL_EXTENSION_DIGITS"),
        (AMERICA, "+19002345678", "DIAL_ALLOW=+19002345678"),
        (AMERICA, "19002345678", "DIAL_ALLOW=+19002345678"),
        (AMERICA, "+18765551234", "DIAL_ALLOW=+1876"),  # Jamaica shares +1
        (AMERICA, "442071234567", "no number that is in use"),
        (AMERICA, "+1011442079460000", "more digits"),
        (AMERICA, "+11900555123", "no number that is in use"),
        (GERMANY, "+490900123456", "no number that is in use"),
        (GERMANY, "00490900123456", "no number that is in use"),
        (GERMANY, "+490137123456", "no number that is in use"),
        (GERMANY, "+4900442079460000", "more digits"),
        (GERMANY, "010330900123456", "more digits"),
        (BRITAIN, "+4409061234567", "costs more"),
        (BRITAIN, "+440871234567", "no number that is in use"),
        (Rules(country_code="33"), "+330899123456", "costs more"),
        (Rules(country_code="353"), "+3531580123456", "costs more"),
        (Rules(country_code="420"), "+420909123456", "costs more"),
        (Rules(country_code="7"), "+77012345678", "DIAL_ALLOW=+7701"),  # Kazakhstan shares +7
        (Rules(allow=("+1212",)), "+12125551234567890", "more digits than a number can have"),
        (AMERICA, "011442071234567", "+442071234567"),
        (BRITAIN, "09012345678", "DIAL_ALLOW=+449012345678"),
        (BRITAIN, "07012345678", "DIAL_ALLOW=+447012345678"),
        (BRITAIN, "0015551234567", "+15551234567"),
        (Rules(allow=("+1",)), "+881612345678", "DIAL_ALLOW=+881"),
        (Rules(allow=("+1",), deny=("+1212",)), "+12125551234", "DIAL_DENY"),
        (Rules(allow=("+1212",), deny=("+1212",)), "+12125551234", "DIAL_DENY"),
        (Rules(allow=("100",), deny=("100",)), "100", "DIAL_DENY"),
        (Rules(deny=("7",)), "7000", "DIAL_DENY"),
        (Rules(allow=("9",)), "9011442071234567", "neither a number"),  # a whole number, not a beginning
    ],
)
def test_refused_with_the_setting_that_decides(rules: Rules, number: str, said: str) -> None:
    reason = refusal(number, rules)
    assert reason is not None and said in reason
    assert reason.count("\n") == 0 and reason.endswith(".")
    assert "DIAL_" in reason


@pytest.mark.parametrize(
    ("rules", "number", "forms"),
    [
        (Rules(), "+442", ["+442"]),
        (Rules(), "00442", ["+442"]),
        (Rules(), "011442", ["+442"]),
        (BRITAIN, "02071234567", ["+442071234567"]),
        (BRITAIN, "00442071234567", ["+442071234567"]),
        (GERMANY, "0015551234567", ["+15551234567"]),
        (AMERICA, "12125551234", ["+12125551234"]),
        (AMERICA, "2125551234", ["+12125551234"]),
        (AMERICA, "00442071234567", ["+100442071234567", "+442071234567"]),
        (Rules(), "5551234", []),
    ],
)
def test_international_forms(rules: Rules, number: str, forms: list[str]) -> None:
    assert international_forms(number, rules) == forms


numbers = st.from_regex(r"\+?[0-9*#]{1,32}", fullmatch=True).filter(is_number)
plus_numbers = st.from_regex(r"\+[0-9]{1,15}", fullmatch=True)


@given(numbers)
def test_without_settings_nothing_may_be_called(number: str) -> None:
    assert refusal(number, Rules()) is not None


@given(numbers)
def test_own_extensions_are_short_and_no_emergency(number: str) -> None:
    if refusal(number, OWN) is None:
        assert re.fullmatch(r"[0-9]{1,4}", number) and number not in EMERGENCY


british_numbers = st.from_regex(r"(\+44|0044|0)[0-9]{7,12}", fullmatch=True)


@given(st.one_of(numbers, british_numbers))
def test_the_own_country_opens_nothing_abroad(number: str) -> None:
    if refusal(number, BRITAIN) is None:
        assert all(
            form.startswith("+44") and len(form) <= 16 for form in international_forms(number, BRITAIN)
        )


@given(
    st.one_of(numbers, british_numbers), st.one_of(plus_numbers, st.sampled_from(["+44", "+447", "+4420"]))
)
def test_what_is_denied_is_denied_however_it_is_written(number: str, denied: str) -> None:
    rules = Rules(country_code="44", deny=(denied,))
    if any(form.startswith(denied) for form in international_forms(number, rules)):
        assert refusal(number, rules) is not None


@given(plus_numbers)
def test_the_remedy_that_a_refusal_names_helps(number: str) -> None:
    reason = refusal(number, Rules())
    assert reason is not None
    remedy = re.search(r"DIAL_ALLOW=([+0-9]+)", reason)
    assert remedy and refusal(number, Rules(allow=(remedy[1],))) is None


@given(st.text(max_size=40))
def test_only_numbers_are_numbers(text: str) -> None:
    assert is_number(text) == bool(re.fullmatch(r"\+?[0-9*#]{1,32}", text, re.ASCII))


# --- how much ----------------------------------------------------------------------------------------

NOW = 1_800_000_000.0


def call(started_ago_s: float, lasted_s: float | None, limit_s: float = 3600) -> Dialled:
    started_at = NOW - started_ago_s
    return Dialled("x", started_at, limit_s, None if lasted_s is None else started_at + lasted_s)


def test_calls_of_the_last_minute_are_counted() -> None:
    rules = Rules(per_minute=2)
    assert limit_reached([call(59, 1)], rules, NOW) is None
    reason = limit_reached([call(59, 1), call(1, None)], rules, NOW)
    assert reason and "DIAL_PER_MINUTE" in reason
    assert limit_reached([call(61, 1), call(1, None)], rules, NOW) is None


def test_minutes_of_the_last_24_hours_are_counted() -> None:
    rules = Rules(daily_minutes=10)
    assert remaining_s([call(3600, 240), call(1800, 60)], rules, NOW) == 300
    reason = limit_reached([call(3600, 600)], rules, NOW)
    assert reason and "DIAL_DAILY_MINUTES" in reason
    assert limit_reached([call(WINDOW_S + 3601, 600)], rules, NOW) is None


def test_a_call_in_progress_counts_so_far_and_one_of_a_dead_process_to_its_limit() -> None:
    assert call(30, None).seconds(NOW) == 30
    assert call(9000, None, limit_s=600).seconds(NOW) == 600


def test_a_clock_that_was_set_back_gives_nothing_back() -> None:
    ahead = Dialled("x", NOW + 500, 3600.0, NOW + 560)
    assert ahead.seconds(NOW) == 60
    assert Dialled("x", NOW + 500, 3600.0).seconds(NOW) == 0
    assert kept([ahead], NOW) == [ahead]
