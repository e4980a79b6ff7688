"""How a call ended, in the operator's words; what SIP and Q.850 say about a call nobody answered. Core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Outcome(StrEnum):
    """How a call ended."""

    ANSWERED = "answered"
    """Both sides were connected, and one of them hung up."""
    BUSY = "busy"
    NO_ANSWER = "no answer"
    """It rang, and nobody answered."""
    REJECTED = "rejected"
    """The far end, or the trunk, declined."""
    UNREACHABLE = "unreachable"
    """No such number or endpoint, or nothing there that rings."""
    CONGESTION = "congestion"
    """The network could not carry the call; another time it may."""
    CANCELLED = "cancelled"
    """Hung up by the calling side before an answer."""
    FAILED = "failed"
    """Something broke in Asterisk or here."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a call: what it was, who brought it about, and one clause that says more."""

    outcome: Outcome
    by: Literal["far", "us", "asterisk"]
    detail: str

    def __str__(self) -> str:
        who = {"far": "the other side", "us": "this side", "asterisk": "Asterisk"}[self.by]
        return f"{self.outcome}; ended by {who}: {self.detail}"


# The statuses a callee or a trunk gives (RFC 3261 section 21, RFC 8197, RFC 8688). Others go by class.
_SIP: Mapping[int, Outcome] = {
    403: Outcome.REJECTED,
    408: Outcome.NO_ANSWER,
    480: Outcome.NO_ANSWER,
    486: Outcome.BUSY,
    487: Outcome.NO_ANSWER,
    488: Outcome.REJECTED,
    503: Outcome.CONGESTION,
    600: Outcome.BUSY,
    603: Outcome.REJECTED,
    604: Outcome.UNREACHABLE,
    606: Outcome.REJECTED,
    607: Outcome.REJECTED,
    608: Outcome.REJECTED,
}

_SIP_CLASS: Mapping[int, Outcome] = {
    3: Outcome.UNREACHABLE,  # moved, and Asterisk does not follow
    4: Outcome.UNREACHABLE,
    5: Outcome.CONGESTION,
    6: Outcome.REJECTED,
}

# Q.850 causes of channels that have no SIP status.
_Q850: Mapping[int, Outcome] = {
    **dict.fromkeys((1, 2, 3, 20, 22, 27, 28), Outcome.UNREACHABLE),
    17: Outcome.BUSY,
    **dict.fromkeys((18, 19), Outcome.NO_ANSWER),
    **dict.fromkeys((21, 58, 88), Outcome.REJECTED),
    **dict.fromkeys((34, 38, 41, 42, 44), Outcome.CONGESTION),
}

_DIALSTATUS: Mapping[str, Outcome] = {
    "BUSY": Outcome.BUSY,
    "CONGESTION": Outcome.CONGESTION,
    "NOANSWER": Outcome.NO_ANSWER,
    "CHANUNAVAIL": Outcome.UNREACHABLE,
}


def unanswered(
    *, cause: int | None, cause_txt: str = "", tech_cause: int | None = None, dialstatus: str = "", rang: bool
) -> Ending:
    """What became of an outbound call that ended before an answer.

    Args:
        cause, cause_txt, tech_cause: of ChannelDestroyed.
        dialstatus: the last one of its Dial events; RINGING or PROGRESS if no final one came, as when the
            originate's timeout ran out in Asterisk, which then makes up a SIP status of 480.
        rang: it rang, or had early media.
    """
    if tech_cause is not None and tech_cause >= 300:
        outcome = _SIP.get(tech_cause) or _SIP_CLASS.get(tech_cause // 100, Outcome.FAILED)
        detail = f"SIP {tech_cause}"
    else:
        outcome = _Q850.get(cause or 0) or _DIALSTATUS.get(dialstatus, Outcome.FAILED)
        detail = f"cause {cause}" if cause is not None else "no cause given"
    if outcome is Outcome.NO_ANSWER and not rang:
        outcome = Outcome.UNREACHABLE
    words = f" ({cause_txt})" if cause_txt else ""
    return Ending(outcome, "far", f"{detail}{words}")
