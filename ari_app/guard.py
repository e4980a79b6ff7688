"""Which numbers may be called, and how much: what keeps a bot's phone bill from being a surprise. Core.

A number is allowed when every way in which a carrier may read it is. It is read in international form (`+`,
country code, number): `00` stands for `+`, as `011` does in North America, and NATIONAL_PREFIX for the own
country's code. The longest entry that it begins with decides, whether of DIAL_ALLOW, of DIAL_DENY, COUNTRY_CODE
or the list of premium numbers below; between equals DIAL_DENY wins, then DIAL_ALLOW. What matches nothing is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

EMERGENCY = frozenset(
    (*("000", "110", "112", "113", "115", "116", "117", "118", "119", "122", "133", "144"), "911", "999")
)
"""A machine that calls these by mistake keeps help from somebody: only DIAL_ALLOW with the whole number opens them."""

SERVICE = ("118", "411")
"""Directory services: short, and dear."""

# Beginnings of numbers that cost more than their country says: shared cost, satellites and premium numbers of
# ITU-T E.164 (its list of assigned country codes), premium ranges of national numbering plans, and the countries
# that share +1 with the United States and Canada.
PREMIUM = (
    *("+808", "+870", "+878", "+881", "+882", "+883", "+888", "+979", "+991"),
    *("+1900", "+1242", "+1246", "+1264", "+1268", "+1284", "+1345", "+1441", "+1473", "+1649"),
    *(
        "+1658",
        "+1664",
        "+1721",
        "+1758",
        "+1767",
        "+1784",
        "+1809",
        "+1829",
        "+1849",
        "+1868",
        "+1869",
        "+1876",
    ),
    *("+449", "+4470", "+4484", "+4487", "+44118"),
    *(
        "+49900",
        "+49137",
        "+49180",
        "+49118",
        "+43900",
        "+43901",
        "+43930",
        "+43931",
        "+41900",
        "+41901",
        "+41906",
    ),
    *(
        "+3389",
        "+3381",
        "+3382",
        "+34803",
        "+34806",
        "+34807",
        "+34905",
        "+34907",
        "+39892",
        "+39894",
        "+39895",
    ),
    *("+39899", "+31900", "+31906", "+31909", "+32900", "+32901", "+32902", "+32903", "+32904", "+32905"),
    *("+351601", "+351607", "+351646", "+351760", "+351761", "+46900", "+46939", "+46944", "+4782"),
    *("+4590", "+358600", "+358700", "+48700", "+48701", "+48703", "+48704", "+48708", "+61190", "+64900"),
    *("+55900", "+52900", "+81990"),
)


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of outbound calls; `allow` and `deny` hold `+` beginnings and numbers as dialled."""

    allow: Sequence[str] = ()
    deny: Sequence[str] = ()
    country_code: str = ""
    national_prefix: str = ""
    extension_digits: int = 4
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
    if number in EMERGENCY:
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
            f"{number} is neither a number in international form (+ and country code) nor an extension of at most "
            f"{rules.extension_digits} digits (DIAL_EXTENSION_DIGITS): DIAL_ALLOW={number} allows just this number."
        )
    return next((reason for form in forms if (reason := _refused(form, rules))), None)


def international_forms(number: str, rules: Rules) -> list[str]:
    """Each way in which a carrier may read it, as `+` and digits; nothing when it is a guess."""
    if number.startswith("+"):
        # "+0…" is no country, and what a carrier makes of it nobody knows; it matches no entry.
        return [number]
    forms = []
    if number.startswith("00"):
        forms.append("+" + number[2:])
    elif rules.national_prefix and rules.country_code and number.startswith(rules.national_prefix):
        forms.append(f"+{rules.country_code}{number[len(rules.national_prefix) :]}")
    if number.startswith("011") and rules.country_code in ("", "1"):
        forms.append("+" + number[3:])
    if rules.national_prefix == "1" and number.startswith("1"):
        # With or without the plus: the country code of North America is also what national calls begin with.
        forms.append("+" + number)
    return forms


def _refused(form: str, rules: Rules) -> str | None:
    allowed = _longest(form, rules.allow)
    denied = _longest(form, rules.deny)
    premium = _longest(form, PREMIUM)
    home = (
        f"+{rules.country_code}" if rules.country_code and form.startswith(f"+{rules.country_code}") else ""
    )
    best = max(len(allowed), len(denied), len(premium), len(home))
    if not best:
        return (
            f"{form} is in none of the ranges that may be called: DIAL_ALLOW={form} allows this number, "
            f"and DIAL_ALLOW={form[:3]} all that begin so."
        )
    if len(denied) == best:
        return f"numbers that begin with {denied} may not be called: DIAL_DENY says so."
    if len(allowed) == best:
        return None
    if len(premium) == best:
        return (
            f"numbers that begin with {premium} cost more than others: DIAL_ALLOW={premium} would allow them."
        )
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
