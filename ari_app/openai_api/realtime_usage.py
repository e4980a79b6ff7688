"""What the server of a Realtime session counts. Core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ari_app.dialog.ports import EngineUsed
from ari_app.dialog.usage import Bill
from ari_app.openai_api.realtime_protocol import STAGE, number_of, object_of
from ari_app.prices import Prices


def token_counts(usage: Mapping[str, Any]) -> dict[str, int]:
    """The `usage` of a `response.done` by kind; cached tokens are not counted among the others."""
    into = object_of(usage, "input_token_details")
    cached = object_of(into, "cached_tokens_details")
    out = object_of(usage, "output_token_details")
    counts = {}
    for kind in ("text", "audio"):
        from_cache = int(number_of(cached, f"{kind}_tokens"))
        counts[f"{kind}_in"] = int(number_of(into, f"{kind}_tokens")) - from_cache
        counts[f"{kind}_in_cached"] = from_cache
        counts[f"{kind}_out"] = int(number_of(out, f"{kind}_tokens"))
    return counts


@dataclass(frozen=True, slots=True)
class Priced:
    """A model and what it costs, where that is known."""

    model: str
    prices: Prices | None = None


class Meter:
    """Adds up one call."""

    def __init__(self) -> None:
        self.bill = Bill()
        self._conversation = self._transcription = Priced("")

    def use(self, conversation: Priced, transcription: Priced) -> None:
        """From now on these models are paid."""
        self._conversation, self._transcription = conversation, transcription

    def count_transcription(self, turn: int, usage: Mapping[str, Any]) -> EngineUsed | None:
        """Take the usage of one transcript, told in seconds or in tokens."""
        details = object_of(usage, "input_token_details")
        amounts = {
            "audio_ms": round(number_of(usage, "seconds") * 1000),
            "audio_in": int(number_of(details, "audio_tokens")),
            "text_in": int(number_of(details, "text_tokens")),
            "text_out": int(number_of(usage, "output_tokens")),
        }
        return self._enter(turn, "transcription", self._transcription, amounts)

    def count(self, turn: int, usage: Mapping[str, Any]) -> EngineUsed | None:
        """Take the usage of one response; None when the server counted nothing."""
        return self._enter(turn, STAGE, self._conversation, token_counts(usage))

    def _enter(self, turn: int, stage: str, what: Priced, amounts: dict[str, int]) -> EngineUsed | None:
        counted = {kind: count for kind, count in amounts.items() if count > 0}
        return self.bill.enter(turn, stage, what.model, counted, what.prices) if counted else None
