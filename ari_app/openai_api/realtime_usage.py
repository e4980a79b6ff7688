"""What the provider counts, and what that costs at its list prices. Core."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ari_app.dialog.ports import EngineUsed
from ari_app.openai_api.realtime_protocol import STAGE, number_of, object_of

Prices = Mapping[str, float]
"""US dollars for a million tokens of each kind that `EngineUsed` names; `minute`: of transcribed audio."""


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


class Meter:
    """Adds up one call."""

    def __init__(self) -> None:
        self.model = ""
        self.tokens = 0
        self.cost_usd: float | None = 0.0
        """None as soon as something was used whose price is not known."""
        self._prices: Prices | None = None

    def use(self, model: str, prices: Prices | None) -> None:
        """From now on this model is paid."""
        self.model, self._prices = model, prices
        if prices is None:
            self.cost_usd = None

    def count_transcription(self, turn: int, usage: Mapping[str, Any]) -> EngineUsed | None:
        """Take the usage of one transcript, where it is told in seconds."""
        seconds = number_of(usage, "seconds")
        if not seconds:
            return None
        cost_usd = None
        if self._prices is not None and self.cost_usd is not None:
            cost_usd = seconds / 60 * self._prices.get("minute", 0.0)
            self.cost_usd += cost_usd
        return EngineUsed(
            turn, "transcription", "", {"audio_ms": round(seconds * 1000)}, cost_usd, self.cost_usd
        )

    def count(self, turn: int, usage: Mapping[str, Any]) -> EngineUsed | None:
        """Take the usage of one response; None when the server counted nothing."""
        tokens = token_counts(usage)
        if not any(tokens.values()):
            return None
        self.tokens += sum(tokens.values())
        cost_usd = None
        if self._prices is not None and self.cost_usd is not None:
            cost_usd = sum(count * self._prices[kind] for kind, count in tokens.items()) / 1e6
            self.cost_usd += cost_usd
        return EngineUsed(turn, STAGE, self.model, tokens, cost_usd, self.cost_usd)
