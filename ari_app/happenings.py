"""What is told of a call while it goes on: to the command that placed it, to counters, to whoever watches. Core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ari_app.ari.outcome import Ending
from ari_app.dialog import ports
from ari_app.rtp.quality import LineQuality


@dataclass(frozen=True, slots=True)
class Progress:
    """The call reached a stage: dialing, ringing, answered, talking."""

    stage: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The call is over and nothing of it is left."""

    ending: Ending
    rtp: Mapping[str, int] = field(default_factory=dict)
    """What `RtpCounters` counted."""
    unheard: bool = False
    """Nothing of the caller ever reached us, though the call went on for seconds."""


@dataclass(frozen=True, slots=True)
class LineHeard:
    """What Asterisk says of the caller's line."""

    quality: LineQuality
    final: bool = False
    """The last word on it."""


@dataclass(frozen=True, slots=True)
class RecordingFailed:
    """The recording of the call is not whole, or there is none."""

    reason: str


Happening = Progress | Ended | LineHeard | RecordingFailed | ports.Fact
Observer = Callable[[Happening], None]
