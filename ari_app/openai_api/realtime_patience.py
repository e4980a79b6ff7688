"""What the caller hears when the server is slow, silent or failing, and when to give up. Core."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ari_app.audio.format import FRAME_MS
from ari_app.dialog.phrasebook import NO_PHRASES, Phrasebook
from ari_app.dialog.ports import EngineFailed, Fact, GaveUp, Playout
from ari_app.errors import EngineError

LAST_WORDS_S = 20.0
"""The longest wait for playout to reach the end of the last sentence."""
FAREWELL = "local.farewell"


@dataclass(frozen=True, slots=True)
class Manners:
    """How the conversation is conducted on our side. PCM is 8 kHz."""

    greeting: str = ""
    vad: str = "energy"
    vad_threshold_dbfs: float = -40.0
    min_speech_ms: int = 140
    protect_greeting: bool = False
    """What is said over the greeting is not heard."""
    phrases: Phrasebook = NO_PHRASES
    hold_after_s: float = 2.5
    """When the bot has owed an answer for so long, the caller is asked for patience."""
    answer_deadline_s: float = 10.0
    max_failures: int = 3
    """Failures in a row after which the brain gives up; at once when the failure is permanent."""


class Patience:
    """Counts what went wrong, and speaks the local sentences."""

    def __init__(self, manners: Manners, playout: Playout, report: Callable[[Fact], None]) -> None:
        self._manners = manners
        self._playout = playout
        self._report = report
        self.language: str | None = None
        """The caller's, where the server names it."""
        self._owed_since: float | None = None
        self._held = False
        """The caller was asked for patience, in this wait."""
        self._silent_since = 0.0
        self._starved_ms = 0.0
        self._failures = 0
        self._sentences = 0
        self._giving_up: str | None = None
        self._farewell_until = 0.0
        self.over = False
        """Gave up, and the caller heard so."""

    @property
    def giving_up(self) -> bool:
        return self._giving_up is not None

    @property
    def owes(self) -> bool:
        """The bot owes the caller an answer."""
        return self._owed_since is not None

    def owe(self, now: float) -> None:
        """From now on the bot owes an answer, if it did not before."""
        if self._owed_since is None:
            self._owed_since = now
            self._held = False

    def settled(self) -> None:
        """It does not any more."""
        self._owed_since = None

    def owed_s(self, now: float) -> float:
        """For how long it has owed an answer."""
        return now - self._owed_since if self._owed_since is not None else 0.0

    def succeeded(self) -> None:
        """The caller heard a whole answer."""
        self._failures = 0

    def failed(self, error: EngineError, turn: int, now: float, *, may_speak: bool, final: bool) -> None:
        """Tell the caller, and give up when trying again is no use; the last words are not interrupted."""
        if self.giving_up:
            return
        self._failures += 1
        self._report(EngineFailed(turn, error.stage, error.message, error.permanent, error.kind))
        self.settled()
        if final or error.permanent or self._failures >= self._manners.max_failures:
            self._giving_up = str(error)
            self._farewell_until = now + LAST_WORDS_S
            if regret := self._manners.phrases.get("regret", self.language).pcm:
                self._play(FAREWELL, regret)
            else:
                self.heard_farewell()
        elif may_speak:
            self._say("apology")

    def watch(self, now: float, *, silence: bool, in_doubt: bool = False, starved: bool = False) -> None:
        """Once per frame; `silence`: neither side is speaking; `in_doubt`: the server may not have heard the caller;
        `starved`: the answer has broken off, perhaps for a moment."""
        self._starved_ms = self._starved_ms + FRAME_MS if starved else 0.0
        if self.giving_up:
            if now > self._farewell_until:
                self.heard_farewell()
        elif not silence:
            self._silent_since = now
        elif (in_doubt and not self._held) or self._silent_s(now, in_doubt) > self._manners.hold_after_s:
            self._held, self._silent_since = True, now
            self._say("hold")

    @property
    def starved(self) -> bool:
        """The rest of an answer has not come for too long, whatever else the server sends; a pause of ours is none."""
        return self._starved_ms > 1000 * self._manners.hold_after_s

    def _silent_s(self, now: float, in_doubt: bool) -> float:
        """For how long the caller has heard nothing although an answer is owed, or may be."""
        if self._owed_since is None:
            return now - self._silent_since if in_doubt else 0.0
        return now - max(self._owed_since, self._silent_since)

    def heard_farewell(self) -> None:
        """The last words were heard."""
        if not self.over:
            self.over = True
            self._report(GaveUp(self._giving_up or "the conversation failed"))

    def _say(self, purpose: str) -> None:
        self._sentences += 1
        self._play(f"local.{purpose}{self._sentences}", self._manners.phrases.get(purpose, self.language).pcm)

    def _play(self, item_id: str, pcm: bytes) -> None:
        if pcm:
            self._playout.play(item_id, pcm)
            self._playout.finish(item_id)
