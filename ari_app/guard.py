"""Which numbers may be called, and how much: what keeps a bot's phone bill from being a surprise. Core.

A number is allowed when every way in which a carrier may read it is. Entries of DIAL_ALLOW and DIAL_DENY are beginnings
of numbers in international form; the longest one decides, and between equals DIAL_DENY wins. Where no entry says more
than a country code, COUNTRY_CODE included, a number must be one that is in use in that country (libphonenumber's
numbering plans) and ordinary: no premium or shared cost, no satellite, no other country that shares the code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import phonenumbers
from phonenumbers import PhoneNumber, PhoneNumberType

EMERGENCY = frozenset(
    (*("000", "110", "112", "113", "115", "116", "117", "118", "119", "122", "133", "144"), "911", "999")
)
"""A machine that calls these by mistake keeps help from somebody: only DIAL_ALLOW with the whole number opens them."""

SERVICE = ("118", "411")
"""Directory services: short, and dear."""

ORDINARY = frozenset(
    (
        *(PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE),
        *(PhoneNumberType.TOLL_FREE, PhoneNumberType.VOIP),
    )
)
LONGEST = len("+") + 15
HOME = {"1": ("US", "CA")}
"""Countries of a code that cost alike; of every other code it is the first."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of outbound calls; `allow` and `deny` hold `+` beginnings and numbers as dialled."""

    allow: Sequence[str] = ()
    deny: Sequence[str] = ()
    country_code: str = ""
    extension_digits: int = 0
    per_minute: int = 6
    concurrent: int = 2
    daily_minutes: int = 120


def is_number(text: str) -> bool:
    """True for digits, `*` and `#`, with an optional `+` in front."""
    return re.fullmatch(r"\+?[0-9*#]{1,32}", text, re.ASCII) is not None


def refusal(number: str, rules: Rules) -> str | None:
    """Why `number` may not be called, one sentence that names the setting which allows it; None if it may."""
    denied = _longest(number, [entry for entry in rules.deny if not entry.startswith("+")])
    if number in rules.allow and number != denied and not number.startswith("+"):
        return None
    if denied:
        return f"numbers that begin with {denied} may not be called: DIAL_DENY says so."
    region = _region(rules.country_code)
    if number in EMERGENCY or (region and phonenumbers.is_emergency_number(number, region)):
        return (
            f"{number} is an emergency number, which a bot does not call: DIAL_ALLOW={number} would allow it."
        )
    if re.search(r"[*#]", number):
        return (
            f"{number} holds * or #, which makes it a command to the exchange and no number: "
            f"DIAL_ALLOW={number} would allow it."
        )
    is_short = not number.startswith("+") and len(number) <= rules.extension_digits
    if is_short and not number.startswith(SERVICE):
        return None
    if is_short:
        return f"{number} is a directory service, which is dear: DIAL_ALLOW={number} would allow it."
    forms = international_forms(number, rules)
    if not forms:
        return (
            f"{number} is neither a number in international form (+ and country code) nor one of your own country "
            f"(COUNTRY_CODE) nor an extension (DIAL_EXTENSION_DIGITS): DIAL_ALLOW={number} allows just this number."
        )
    return next((reason for form in forms if (reason := _refused(form, rules))), None)


def _region(country_code: str) -> str | None:
    """The country, as libphonenumber names it."""
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(int(country_code or 0), ())
    return regions[0] if regions else None


def is_country_code(text: str) -> bool:
    """True for the code of a country; satellites and other services have codes too, which are none."""
    return text.isdecimal() and _region(text) not in (None, "001")


def international_forms(number: str, rules: Rules) -> list[str]:
    """Each way in which a carrier may read it, as `+` and digits; nothing when it is a guess."""
    if number.startswith("+"):
        return [number]
    forms = set()
    region = _region(rules.country_code)
    if region and (parsed := _parsed(number, region)):
        forms.add(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))
    if number.startswith("00"):
        forms.add("+" + number[2:])
    if number.startswith("011") and region in (None, "US"):
        forms.add("+" + number[3:])
    return sorted(forms)


def _parsed(number: str, region: str | None) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None


def _refused(form: str, rules: Rules) -> str | None:
    parsed = _parsed(form, None)
    allowed, denied = _longest(form, rules.allow), _longest(form, rules.deny)
    if denied and len(denied) >= len(allowed):
        return f"numbers that begin with {denied} may not be called: DIAL_DENY says so."
    country = f"+{parsed.country_code}" if parsed else form[:3]
    if allowed == form:
        return None
    if len(form) > LONGEST:
        return (
            f"{form} has more digits than a number can have (ITU-T E.164): DIAL_ALLOW={form} would allow it."
        )
    if len(allowed) > len(country):
        return None
    if allowed or country == f"+{rules.country_code}":
        return _dear(form, parsed, country)
    return (
        f"{form} is in none of the ranges that may be called: DIAL_ALLOW={form} allows this number, "
        f"and DIAL_ALLOW={country} the country's."
    )


def _dear(form: str, parsed: PhoneNumber | None, country: str) -> str | None:
    """Why a number of an allowed country is not one that costs what the country's numbers cost."""
    if parsed is None or not phonenumbers.is_valid_number(parsed):
        return f"{form} is no number that is in use in its country: DIAL_ALLOW={form} would allow it."
    if phonenumbers.number_type(parsed) not in ORDINARY:
        return f"{form} costs more than others, or may: DIAL_ALLOW={form} would allow it."
    region, code = phonenumbers.region_code_for_number(parsed), country.removeprefix("+")
    if region not in HOME.get(code, (_region(code),)) or region == "001":
        beginning = form[: len(country) + 3]
        return f"{form} shares its country code with others and costs more: DIAL_ALLOW={beginning} would allow it."
    return None


def _longest(number: str, entries: Iterable[str]) -> str:
    """The longest entry that the number begins with; an entry without `+` in `allow` is never a beginning."""
    return max((entry for entry in entries if number.startswith(entry)), key=len, default="")


# --- how much ----------------------------------------------------------------------------------------

WINDOW_S = 24 * 3600.0
"""Minutes are counted over the last 24 hours: a calendar's midnight would allow twice as many in one night."""


@dataclass(frozen=True, slots=True)
class Dialled:
    """One outbound call in the ledger; times are of the wall clock, in seconds."""

    call_id: str
    started_at: float
    limit_s: float
    """It cannot have lasted longer, whatever became of the process that made it."""
    ended_at: float | None = None

    def seconds(self, now: float) -> float:
        """How long it has lasted; a call whose end nobody wrote down goes on to its limit."""
        end = now if self.ended_at is None else self.ended_at
        return min(max(end - self.started_at, 0.0), self.limit_s)


def kept(calls: Iterable[Dialled], now: float) -> list[Dialled]:
    """The calls that still count."""
    return [call for call in calls if call.started_at + call.limit_s > now - WINDOW_S]


def remaining_s(calls: Iterable[Dialled], rules: Rules, now: float) -> float:
    """Seconds that may still be spent."""
    return rules.daily_minutes * 60 - sum(call.seconds(now) for call in kept(calls, now))


def limit_reached(calls: Sequence[Dialled], rules: Rules, now: float) -> str | None:
    """Why no call may begin now, one sentence that names the setting; None if one may."""
    begun = sum(now - 60 < call.started_at <= now for call in calls)
    if begun >= rules.per_minute:
        return (
            f"{begun} outbound calls were begun within the last minute, and DIAL_PER_MINUTE allows "
            f"{rules.per_minute}: wait a minute, or raise it."
        )
    if remaining_s(calls, rules, now) < 1:
        return (
            f"the {rules.daily_minutes} minutes of outbound calls within 24 hours that DIAL_DAILY_MINUTES allows "
            "are used up: wait, or raise it."
        )
    return None
